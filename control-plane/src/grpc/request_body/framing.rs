//! Where the messages of a gRPC body begin and end: five bytes of head, the last four of them the
//! length of what follows.

const HEAD: usize = 5;

#[derive(Debug, Default)]
pub(super) struct Framing {
    head: [u8; HEAD],
    /// Of the head, so far.
    known: usize,
    /// Of the message behind it.
    left: usize,
}

/// In one piece of a body.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    /// A message began in it.
    pub(super) begun: bool,
    /// The length of the longest message whose head ended in it.
    pub(super) longest: usize,
}

impl Framing {
    pub(super) fn read(&mut self, mut data: &[u8]) -> Seen {
        let mut seen = Seen::default();
        while let Some((byte, rest)) = data.split_first() {
            if self.known == HEAD {
                let skipped = self.left.min(data.len());
                data = data.get(skipped..).unwrap_or_default();
                self.left = self.left.saturating_sub(skipped);
            } else {
                seen.begun |= self.known == 0;
                if let Some(place) = self.head.get_mut(self.known) {
                    *place = *byte;
                }
                self.known = self.known.saturating_add(1);
                data = rest;
                if self.known == HEAD {
                    let [_, length @ ..] = self.head;
                    self.left = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
                    seen.longest = seen.longest.max(self.left);
                }
            }
            if self.known == HEAD && self.left == 0 {
                self.known = 0;
            }
        }
        seen
    }

    /// A message has begun and is not whole.
    pub(super) fn is_inside(&self) -> bool {
        self.known > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(length: u32) -> Vec<u8> {
        let mut bytes = vec![0];
        bytes.extend(length.to_be_bytes());
        bytes.resize(HEAD + length as usize, 7);
        bytes
    }

    #[test]
    fn finds_messages_however_they_are_cut() {
        let bytes = [message(3), message(0), message(300)].concat();
        for size in 1..=bytes.len() {
            let (mut framing, mut longest, mut begun) = (Framing::default(), 0, 0);
            for piece in bytes.chunks(size) {
                let seen = framing.read(piece);
                longest = longest.max(seen.longest);
                begun += usize::from(seen.begun);
            }
            assert!(!framing.is_inside() && longest == 300, "{size}");
            assert!((1..=3).contains(&begun), "{size}");
        }
    }

    #[test]
    fn is_inside_until_the_last_byte() {
        let (mut framing, bytes) = (Framing::default(), message(2));
        for byte in &bytes[..bytes.len() - 1] {
            framing.read(&[*byte]);
            assert!(framing.is_inside());
        }
        framing.read(&bytes[bytes.len() - 1..]);
        assert!(!framing.is_inside());
    }
}
