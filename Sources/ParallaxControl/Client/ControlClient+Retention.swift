// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

package import ParallaxRetention

extension ControlClient {
    package func retention(of vdi: String) throws(ControlError) -> RetentionDescription {
        try decoded(call("GET", Self.path(vdi) + "/retention"))
    }

    package func setRetention(
        of vdi: String, _ policy: RetentionPolicy
    ) throws(ControlError) -> RetentionDescription {
        try decoded(call("PUT", Self.path(vdi) + "/retention", Array(policy.json.utf8)))
    }

    package func clearRetention(of vdi: String) throws(ControlError) {
        _ = try call("DELETE", Self.path(vdi) + "/retention")
    }

    package func applyRetention(
        to vdi: String, _ request: ApplyRetentionRequest = ApplyRetentionRequest()
    ) throws(ControlError) -> RetentionReport {
        try decoded(
            call("POST", Self.path(vdi) + "/retention/apply", ControlJSON.encode(request)))
    }
}
