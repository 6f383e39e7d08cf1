// SPDX-License-Identifier: MIT OR Apache-2.0
//! A script's output as lines for the log: bytes in any pieces go in, escaped and bounded lines come out.

/// Longest line handed on, in bytes of the script's output.
const MAX_LINE: usize = 400;
/// Most lines handed on in one run, the notice about the rest included.
pub(super) const MAX_LINES: usize = 100;

/// Cuts output into lines. Holds at most one line's bytes, whatever it is fed.
#[derive(Debug, Default)]
pub(super) struct Lines {
    partial: Vec<u8>,
    cut: bool,
    given: usize,
}

impl Lines {
    /// Takes in a piece of output and appends the lines it completes to `out`.
    pub(super) fn push(&mut self, bytes: &[u8], out: &mut Vec<String>) {
        let mut rest = bytes;
        while let Some(end) = rest.iter().position(|b| *b == b'\n') {
            let (line, tail) = rest.split_at(end);
            self.append(line);
            self.give(out);
            rest = tail.get(1..).unwrap_or_default();
        }
        self.append(rest);
    }

    /// The output is at its end: an unfinished last line counts as one.
    pub(super) fn finish(&mut self, out: &mut Vec<String>) {
        self.give(out);
    }

    fn append(&mut self, bytes: &[u8]) {
        let room = MAX_LINE.saturating_sub(self.partial.len());
        self.partial.extend(bytes.iter().take(room));
        self.cut |= bytes.len() > room;
    }

    fn give(&mut self, out: &mut Vec<String>) {
        let line = std::mem::take(&mut self.partial);
        let cut = std::mem::take(&mut self.cut);
        if line.is_empty() || self.given >= MAX_LINES {
            return;
        }
        self.given += 1;
        if self.given == MAX_LINES {
            return out.push("(more output was discarded)".to_owned());
        }
        let mut text = String::new();
        for c in String::from_utf8_lossy(&line).chars() {
            match c {
                '\'' | '"' => text.push(c),
                c => text.extend(c.escape_debug()),
            }
        }
        if cut {
            text.push_str(" (cut)");
        }
        out.push(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lines(pieces: &[&[u8]]) -> Vec<String> {
        let (mut lines, mut out) = (Lines::default(), Vec::new());
        for piece in pieces {
            lines.push(piece, &mut out);
        }
        lines.finish(&mut out);
        out
    }

    #[test]
    fn cuts_escapes_and_bounds() {
        assert_eq!(lines(&[b"one\ntw", b"o\n\nlast"]), ["one", "two", "last"]);
        assert_eq!(
            lines(&[b"it's \"so\" \x1b[31m\xff\r\n"]),
            ["it's \"so\" \\u{1b}[31m\u{fffd}\\r"]
        );
        let long = lines(&[&[b'x'; 5000], b"\nnext\n"]);
        assert_eq!(
            long,
            [format!("{} (cut)", "x".repeat(400)), "next".to_owned()]
        );
        let many = lines(&[b"line\n".repeat(1000).as_slice()]);
        assert_eq!(many.len(), MAX_LINES);
        assert_eq!(many[98..], ["line", "(more output was discarded)"]);
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(bytes: Vec<u8>, at in 0usize..100) {
            let (a, b) = bytes.split_at(at.min(bytes.len()));
            prop_assert_eq!(lines(&[a, b]), lines(&[&bytes]));
        }

        #[test]
        fn no_control_character_comes_out(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
            for line in lines(&[&bytes]) {
                prop_assert!(!line.chars().any(char::is_control), "{:?}", line);
            }
        }
    }
}
