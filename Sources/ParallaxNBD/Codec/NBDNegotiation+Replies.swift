// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// Option replies.
///
/// ```
///  0                 8        12       16       20
///  +-----------------+--------+--------+--------+----------------
///  | 0x3e889045565a9 | option | type   | length | data
///  +-----------------+--------+--------+--------+----------------
/// ```
extension NBDNegotiation {
    /// `text` is for people; only errors have one.
    mutating func reply(to option: UInt32, _ type: NBDOptionReply, _ text: String = "") {
        reply(to: option, type) { $0.append(contentsOf: text.utf8) }
    }

    mutating func reply(
        to option: UInt32, _ type: NBDOptionReply, fill: (inout [UInt8]) -> Void
    ) {
        var data: [UInt8] = []
        fill(&data)
        output.appendBigEndian(NBDMagic.optionReply)
        output.appendBigEndian(option)
        output.appendBigEndian(type.rawValue)
        output.appendBigEndian(UInt32(data.count))
        output.append(contentsOf: data)
    }

    mutating func replyItem(
        _ item: NBDInfoItem, to option: UInt32, fill: (inout [UInt8]) -> Void
    ) {
        reply(to: option, .info) {
            $0.appendBigEndian(item.rawValue)
            fill(&$0)
        }
    }
}
