// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The Parallax authors

internal import CLinux
internal import Glibc
internal import Synchronization

/// Messages from any thread to one thread that sleeps in a reactor.
///
/// The owner watches `fileDescriptor` and calls `drain` when it is readable. A message that
/// arrives while others wait costs no system call.
package final class Mailbox<Message: Sendable>: Sendable {
    /// Readable while messages wait.
    package let fileDescriptor: Int32
    private let messages = Mutex<[Message]>([])
    private let capacity: Int

    /// `capacity`: how many messages may wait.
    package init(capacity: Int = 65536) throws(MailboxError) {
        fileDescriptor = parallax_eventfd_create(0, 1)
        self.capacity = capacity
        guard fileDescriptor >= 0 else { throw MailboxError(errno: -fileDescriptor) }
    }

    deinit { close(fileDescriptor) }

    /// From any thread. False: the mailbox is full, or `limit` messages wait, and the message was
    /// not taken.
    package func send(_ message: Message, ifFewerWaitThan limit: Int = .max) -> Bool {
        let (isTaken, isFirst) = messages.withLock { waiting in
            guard waiting.count < min(capacity, limit) else { return (false, false) }
            waiting.append(message)
            return (true, waiting.count == 1)
        }
        if isFirst {
            let result = parallax_eventfd_write(fileDescriptor, 1)
            precondition(result == 0, "Mailbox: the eventfd refuses a count of one")
        }
        return isTaken
    }

    /// On the owner's thread: replaces the contents of `batch` by all waiting messages, oldest
    /// first. The two arrays change places, so that neither is allocated anew each time.
    package func drain(into batch: inout [Message]) {
        batch.removeAll(keepingCapacity: true)
        // Emptied before the messages are taken: a message sent in between raises it again.
        var ignored: UInt64 = 0
        _ = parallax_eventfd_read(fileDescriptor, &ignored)
        messages.withLock { waiting in swap(&waiting, &batch) }
    }
}

package struct MailboxError: Error, Equatable, CustomStringConvertible {
    package var errno: Int32

    package var description: String {
        "cannot make a mailbox: \(String(cString: strerror(errno)))"
    }
}
