// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// The version of the daemon and of its command line.
package let parallaxVersion = "0.1.0"
