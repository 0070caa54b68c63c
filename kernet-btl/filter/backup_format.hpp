// SPDX-License-Identifier: BSD-3-Clause
// Files of filter `backup`: FOLDER/JOB-RANK-PEER.backup, one for each socket, mode 0600.
//
// A file is a row of records, little-endian, each a head and `size` bytes. A record says of itself
// whether it is whole; nothing behind one that is not is to be believed. A file that is opened
// again (the rank was frozen, or was restarted) gets another `opened` record: what comes after it
// may repeat or take back numbers from before it, and counts instead of them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace kernet::filter {

enum class BackupKind : uint8_t {
    opened = 0,    // no bytes; number is the process id
    sent = 1,      // from `rank` to `peer`
    received = 2,  // from `peer` to `rank`
};

struct BackupRecord {
    uint32_t magic = 0x314b4247;  // "GBK1"
    BackupKind kind = BackupKind::opened;
    uint8_t tag = 0;   // of the message, the upper layer's
    uint8_t part = 0;  // filter::Part
    uint8_t zero = 0;
    uint32_t rank = 0;
    uint32_t peer = 0;
    uint64_t number = 0;  // of the frame in its direction
    int64_t time_us = 0;  // since 1970
    uint64_t size = 0;    // bytes that follow
    uint64_t check = 0;   // XXH64 of the head up to here, as the seed of the XXH64 of the bytes
};
static_assert(sizeof(BackupRecord) == 48 && std::is_trivially_copyable_v<BackupRecord>);

// What belongs into `check`.
uint64_t backup_check(const BackupRecord& head, const void* bytes);

}  // namespace kernet::filter
