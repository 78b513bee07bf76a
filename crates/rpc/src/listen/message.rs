//! Where gRPC's messages end in what comes in.

/// Before each message stand a flag and its length.
const PREFIX_BYTES: usize = 5;

/// Follows the bytes of a request, whatever pieces they come in.
#[derive(Debug, Default)]
pub(super) struct Messages {
    prefix: [u8; PREFIX_BYTES],
    /// What has come of the message that is not complete, its prefix among it.
    partial: usize,
}

impl Messages {
    /// Takes the next bytes; returns whether a message ended with one of them.
    pub(super) fn take(&mut self, mut data: &[u8]) -> bool {
        let mut has_ended = false;
        while !data.is_empty() {
            let wanted = match PREFIX_BYTES.checked_sub(self.partial) {
                Some(left @ 1..) => {
                    let came = left.min(data.len());
                    self.prefix[self.partial..][..came].copy_from_slice(&data[..came]);
                    came
                }
                _ => (PREFIX_BYTES + self.length() - self.partial).min(data.len()),
            };
            self.partial += wanted;
            data = &data[wanted..];
            if self.partial >= PREFIX_BYTES && self.partial == PREFIX_BYTES + self.length() {
                self.partial = 0;
                has_ended = true;
            }
        }
        has_ended
    }

    /// How much has come of a message that is not complete.
    pub(super) fn partial_bytes(&self) -> usize {
        self.partial
    }

    fn length(&self) -> usize {
        let [_, length @ ..] = self.prefix;
        u32::from_be_bytes(length) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(length: u32) -> Vec<u8> {
        let mut message = vec![0];
        message.extend(length.to_be_bytes());
        message.extend(vec![b'x'; length as usize]);
        message
    }

    #[test]
    fn messages_end_where_their_lengths_say_in_whatever_pieces_they_come() {
        let lengths = [3, 0, 700, 1, 0];
        let bytes: Vec<u8> = lengths.into_iter().flat_map(message).collect();
        for piece in 1..=bytes.len() {
            let mut messages = Messages::default();
            let mut ended = 0;
            for byte in bytes.chunks(1) {
                ended += usize::from(messages.take(byte));
            }
            assert_eq!((ended, messages.partial_bytes()), (lengths.len(), 0));

            for bytes in bytes.chunks(piece) {
                messages.take(bytes);
            }
            assert_eq!(messages.partial_bytes(), 0, "pieces of {piece}");
        }
        let mut messages = Messages::default();
        assert!(messages.take(&bytes[..8]) && messages.partial_bytes() == 0);
        assert!(!messages.take(&bytes[..4]) && messages.partial_bytes() == 4);
        assert!(!messages.take(&bytes[4..7]) && messages.partial_bytes() == 7);
    }
}
