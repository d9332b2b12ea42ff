#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The Parallax authors
#
# In a clone of the gold master, run by systemd at each boot: says what markers there are on this
# disk, writes its own, which is named after the disk, and switches the machine off.
set -e
export PATH=/usr/sbin:/usr/bin
exec >/dev/console 2>&1
trap 'printf "\nPARALLAX-GUEST-RESULT %s\n" $?; systemctl --force --force poweroff' EXIT

folder=/var/lib/parallax-markers
name=$(cat /sys/block/vda/serial)
mkdir -p "$folder"
echo "SYSTEM $name: Debian $(cat /etc/debian_version), process 1 is $(cat /proc/1/comm)"
echo "MARKERS $name: $(cd "$folder" && echo *)"
echo "$name was here" >"$folder/$name"
sync
