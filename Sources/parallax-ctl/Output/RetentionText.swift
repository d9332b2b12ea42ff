// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

import ParallaxControl
import ParallaxRetention

/// A plan for people: a line for each snapshot that stays, with why, and one for each run of those
/// that go between them.
enum RetentionText {
    static func plan(_ plan: RetentionPlan, time: (RetentionTime) -> String) -> String {
        var table = Table(header: ["TIME", "STAYS BECAUSE OF"])
        var going = 0
        func addGoing() {
            if going > 0 { table.add(["", "(\(going) \(going == 1 ? "goes" : "go"))"]) }
            going = 0
        }
        var kept = 0
        for decision in plan.decisions {
            guard decision.isKept else {
                going += 1
                continue
            }
            addGoing()
            kept += 1
            let reasons = decision.reasons.map(\.description).joined(separator: ", ")
            table.add([time(decision.candidate.time), reasons])
        }
        addGoing()
        let count = plan.decisions.count
        let future = plan.inTheFuture.count
        let warning = future == 0 ? "" : "; \(future) in the future, check the clock"
        let total = "\(kept) of \(count) stay, \(count - kept) go\(warning)\n"
        return count == 0 ? total : table.text + total
    }

    /// What an application did. Names are shown: they are what can be looked at or held.
    static func report(_ report: RetentionReport) -> String {
        var table = Table(header: ["SNAPSHOT", "TIME", "", "BECAUSE OF"])
        for decision in report.decisions ?? [] {
            table.add([
                decision.name, decision.createdAt, decision.isKept ? "stays" : "goes",
                decision.isKept ? decision.reasons.joined(separator: ", ") : "-",
            ])
        }
        let verb = report.isDryRun ? "would go" : "gone"
        let warning =
            report.futureCount == 0
            ? "" : "; \(report.futureCount) in the future, check the clock"
        let leftOut =
            report.leavesDecisionsOut == true
            ? "; too many to list, more than \(RetentionReport.decisionLimit)" : ""
        let total =
            "\(report.vdi): \(report.keptCount) stay, \(report.deletedCount) \(verb)\(warning)"
            + "\(leftOut)\n"
        return report.decisions?.isEmpty ?? true ? total : table.text + total
    }
}
