# shellcheck shell=sh
# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The Parallax authors
#
# Writes and verifies two disks while the daemon behind them comes and goes:
#
#     /dev/vda   fio, pass after pass, until the last disk, which the host writes, says "stop"
#     /dev/vdb   guest-io, which knows what every block must hold, until the disk grows
#     /dev/vdc   has fio
#
# A wrong block or an I/O error ends it. On the second disk writeback is off, so that the daemon
# must make each write durable by itself; QEMU 7.2 must not be told so while the daemon is away.
set -e

mount -o ro /dev/vdc /mnt
fio() {
    /mnt/lib/ld-linux-x86-64.so.2 --library-path /mnt/lib /mnt/fio "$@"
}

# Two jobs, each on its own 8 MiB, with up to 16 requests in flight and a flush now and then. What
# was written is verified soon after, and all of it once more at the end.
pass() {
    fio --name=hammer --filename=/dev/vda --direct=1 --ioengine=libaio --iodepth=16 --numjobs=2 \
        --size=8m --offset_increment=8m --rw=randwrite --bsrange=4k-64k --fsync=200 \
        --verify=crc32c --verify_fatal=1 --verify_backlog=64 --do_verify=1 --randseed="$1" \
        >/tmp/fio.log 2>&1 || { cat /tmp/fio.log && return 1; }
}

stopped() {
    [ "$(dd if=/dev/vdd bs=512 count=1 iflag=direct 2>/dev/null | head -c 4)" = stop ]
}

[ "$(cat /sys/block/vda/cache_type)" = "write back" ]
echo "write through" >/sys/block/vdb/cache_type
echo "READY"
/guest/guest-io long /dev/vdb 12 &
known=$!

passes=0
while ! stopped; do
    passes=$((passes + 1))
    pass "$passes"
    kill -0 "$known"
    echo "PASS $passes"
done
echo "STOPPED"
wait "$known"

if dmesg | grep -E 'I/O error|blk_update_request|blocked for more than|BUG:|Oops'; then
    echo "the kernel complains"
    exit 1
fi
[ "$(cat /sys/block/vdb/cache_type)" = "write through" ]
echo "ENDED $passes"
