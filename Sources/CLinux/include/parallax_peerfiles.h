// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

// File descriptors that came from a peer. Behind one may be a file system or a network that the
// peer controls, and then even fstat(2) and close(2) wait for as long as it likes.

#ifndef PARALLAX_PEERFILES_H
#define PARALLAX_PEERFILES_H

// The kinds of which no system call waits for a peer.
#define PARALLAX_PEER_FILE_STRANGE 0
#define PARALLAX_PEER_FILE_EVENT 1  // An eventfd.
#define PARALLAX_PEER_FILE_MEMORY 2 // memfd, tmpfs or hugetlbfs.
#define PARALLAX_PEER_FILE_SOCKET 3 // A connected Unix stream socket, once it is empty
                                     // (parallax_socket_empty).

// What `fd` is, found out without a wait.
int parallax_peer_file_kind(int fd);

// For PARALLAX_PEER_FILE_MEMORY: the unit in which it can be mapped, or -errno. Not what fstat(2)
// says, which for tmpfs is the size of a huge page where it may use those.
long parallax_peer_file_map_unit(int fd);

// Closes one of any kind: at once where that cannot wait, else from a thread that does nothing but
// that. Returns how many strange files there were: it, or those in its queue.
int parallax_peer_file_close(int fd);

#endif
