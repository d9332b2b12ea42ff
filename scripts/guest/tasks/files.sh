# shellcheck shell=sh
# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The Parallax authors
#
# Files with known content, made in the same way by the host, which so knows every checksum without
# asking the guest, and by the guest, which is too slow for good random numbers. Sourced by both.
#
# A plan has lines of `NAME SKIP COUNT`: the file NAME holds its own name and then COUNT pieces of
# 64 KiB of a random file, from the SKIP-th on. The name in front shifts the rest, so that no two
# files have a block in common.

readonly SEED_PIECES=512  # of 64 KiB: 32 MiB

# emit SEED NAME SKIP COUNT: the content of one file.
emit() {
    echo "$2"
    dd if="$1" bs=64k skip="$3" count="$4" 2>/dev/null
}

# plan FOLDER FILES: files of 64 KiB to 4 MiB, 2 MiB on average.
plan() {
    number=0
    while [ "$number" -lt "$2" ]; do
        number=$((number + 1))
        count=$((1 + number * number * 29 % 64))
        echo "$1/$((number % 8))/file-$number $((number * 37 % (SEED_PIECES - 64))) $count"
    done
}

# The guest's part. Both work in the current directory.

# write_files PLAN: all files of a plan, with a line now and then.
write_files() {
    total=$(wc -l <"$1")
    number=0
    while read -r name skip count; do
        mkdir -p "${name%/*}"
        emit /guest/seed "$name" "$skip" "$count" >"$name" || exit 1
        number=$((number + 1))
        if [ $((number % 40)) -eq 0 ] || [ "$number" -eq "$total" ]; then
            echo "wrote $number of $total files"
        fi
    done <"$1"
}

# check_files SUMS: compares every file of a list that sha256sum made; names each bad one.
check_files() {
    total=$(wc -l <"$1")
    number=0
    bad=0
    while [ "$number" -lt "$total" ]; do
        sed -n "$((number + 1)),$((number + 40))p" "$1" >/tmp/sums
        sha256sum -c /tmp/sums >/tmp/verdicts 2>&1 || bad=1
        grep -v ': OK$' /tmp/verdicts || true
        number=$((number + 40))
        [ "$number" -lt "$total" ] || number=$total
        echo "checked $number of $total files"
    done
    [ "$bad" -eq 0 ] || exit 1
}
