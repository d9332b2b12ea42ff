// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

// Linux calls, macros and GNU extensions that Swift's Glibc module leaves out. Every function
// that can fail returns -errno, never -1: errno is thread state that Swift code between the call
// and the check could change.

#ifndef PARALLAX_CLINUX_H
#define PARALLAX_CLINUX_H

#include "parallax_atomics.h"
#include "parallax_events.h"
#include "parallax_files.h"
#include "parallax_guards.h"
#include "parallax_peerfiles.h"
#include "parallax_sockets.h"
#include "parallax_threads.h"
#include "parallax_watchdog.h"

#endif
