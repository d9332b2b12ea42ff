// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import FoundationEssentials

/// The JSON of the control API: sorted keys, no escaped slashes, one trailing newline so that a
/// terminal's prompt is not glued to it.
package enum ControlJSON {
    package static func encode(_ value: some Encodable, pretty: Bool = false) -> [UInt8] {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        if pretty { encoder.outputFormatting.insert(.prettyPrinted) }
        // Our wire types hold strings, integers and booleans, none of which can fail to encode.
        guard let data = try? encoder.encode(value) else { return Array("{}\n".utf8) }
        return Array(data) + [UInt8(ascii: "\n")]
    }

    /// Decodes what a peer sent, turning the decoder's report into one sentence.
    package static func decode<Value: Decodable>(
        _ type: Value.Type, from bytes: [UInt8]
    ) throws(ControlError) -> Value {
        do {
            return try JSONDecoder().decode(type, from: Data(bytes))
        } catch let error as ControlError {
            throw error
        } catch let error as DecodingError {
            throw ControlError(.invalid, sentence(for: error))
        } catch {
            throw ControlError(.invalid, "the body is not valid JSON")
        }
    }

    private static func sentence(for error: DecodingError) -> String {
        switch error {
        case .keyNotFound(let key, _):
            "the field \"\(key.stringValue)\" is missing"
        case .typeMismatch(let type, let context), .valueNotFound(let type, let context):
            "\(subject(context)) must be \(noun(for: type))"
        default:
            "the body is not valid JSON, or a number in it is out of range"
        }
    }

    private static func subject(_ context: DecodingError.Context) -> String {
        guard let key = context.codingPath.last else { return "the body" }
        return "the field \"\(key.stringValue)\""
    }

    private static func noun(for type: any Any.Type) -> String {
        if type == String.self { return "text" }
        if type == Bool.self { return "true or false" }
        if type == UInt64.self || type == Int.self { return "a whole number" }
        return "a JSON object"
    }
}

extension Decoder {
    /// Refuses a field that is none of `keys`: a misspelt option that is silently ignored would
    /// do something else than was asked.
    func rejectUnknownFields<Keys: CodingKey & CaseIterable>(_ keys: Keys.Type) throws {
        let known = Set(Keys.allCases.map(\.stringValue))
        for key in try container(keyedBy: AnyKey.self).allKeys
        where !known.contains(key.stringValue) {
            throw ControlError(.invalid, "the field \(quoted(key.stringValue)) is not known")
        }
    }
}

/// Any field name at all.
private struct AnyKey: CodingKey {
    let stringValue: String
    var intValue: Int? { nil }

    init(stringValue: String) { self.stringValue = stringValue }
    init?(intValue: Int) { nil }
}
