// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

/// Rows with aligned columns, the last one ragged.
struct Table {
    private var rows: [[String]]
    private let rightAligned: Set<Int>

    /// `rightAligned` are the columns of numbers.
    init(header: [String], rightAligned: Set<Int> = []) {
        rows = header.isEmpty ? [] : [header]
        self.rightAligned = rightAligned
    }

    mutating func add(_ row: [String]) { rows.append(row) }

    var text: String {
        var widths: [Int] = []
        for row in rows {
            for (column, cell) in row.enumerated() {
                if column == widths.count { widths.append(0) }
                widths[column] = max(widths[column], cell.count)
            }
        }
        var text = ""
        for row in rows {
            for (column, cell) in row.enumerated() {
                let padding = String(repeating: " ", count: widths[column] - cell.count)
                let isLast = column == row.count - 1
                if rightAligned.contains(column) { text += padding + cell } else { text += cell }
                if !isLast { text += (rightAligned.contains(column) ? "" : padding) + "  " }
            }
            text += "\n"
        }
        return text
    }
}
