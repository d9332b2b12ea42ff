// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

#ifndef PARALLAX_CLIBAIO_H
#define PARALLAX_CLIBAIO_H

#endif
