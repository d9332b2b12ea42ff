// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

#ifndef PARALLAX_CLINUX_H
#define PARALLAX_CLINUX_H

#endif
