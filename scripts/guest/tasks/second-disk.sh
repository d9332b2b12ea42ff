#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The Parallax authors
#
# In a Debian guest, run by systemd: runs what the second disk brings along, and switches the
# machine off. So one image serves for any task.
export PATH=/usr/sbin:/usr/bin
exec >/dev/console 2>&1
trap 'printf "\nPARALLAX-GUEST-RESULT %s\n" $?; systemctl --force --force poweroff' EXIT

mount -o ro /dev/vdb /mnt || exit
cd /mnt || exit
/mnt/task
