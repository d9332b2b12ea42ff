// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

#ifndef PARALLAX_CCHECKSUM_H
#define PARALLAX_CCHECKSUM_H

#endif
