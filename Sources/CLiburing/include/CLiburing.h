// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

#ifndef PARALLAX_CLIBURING_H
#define PARALLAX_CLIBURING_H

#endif
