// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// The unit that guests address, in bytes.
package let sectorBytes = 512

/// The unit of copy-on-write and of the store, in bytes.
package let blockBytes = 4096

/// Sectors in one block.
package let sectorsPerBlock = blockBytes / sectorBytes
