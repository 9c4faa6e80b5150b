//! `--chmod`: a mode in octal, or changes to the one a file has (`u=rwX,go-w`).

/// What becomes of a file's mode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    To(u32),
    By(Vec<Clause>),
}

/// One clause of a symbolic mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Clause {
    /// Which bits it is about, of the twelve.
    who: u32,
    operator: char,
    what: What,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    /// Permissions for everybody (`who` chooses), and whether execution is only for directories and what has it already.
    Bits { bits: u32, conditional: bool },
    /// The permissions that another class has: how far they lie to the left.
    CopyOf(u32),
}

impl Change {
    /// Reads a mode; `None` if it is none.
    pub fn parse(text: &str) -> Option<Self> {
        if text.starts_with(|c: char| c.is_ascii_digit()) {
            let mode = u32::from_str_radix(text, 8).ok()?;
            return (mode <= 0o7777).then_some(Self::To(mode));
        }
        let mut clauses = Vec::new();
        for part in text.split(',') {
            let operators = part.find(['+', '-', '='])?;
            let (who, mut rest) = part.split_at(operators);
            let mut mask = 0;
            for letter in who.chars() {
                mask |= match letter {
                    'u' => 0o4700,
                    'g' => 0o2070,
                    'o' => 0o0007,
                    'a' => 0o6777,
                    _ => return None,
                };
            }
            if who.is_empty() {
                mask = 0o6777;
            }
            while let Some(operator) = rest.chars().next() {
                rest = &rest[1..];
                let end = rest.find(['+', '-', '=']).unwrap_or(rest.len());
                let (letters, after) = rest.split_at(end);
                rest = after;
                clauses.push(Clause {
                    who: mask,
                    operator,
                    what: What::parse(letters)?,
                });
            }
        }
        Some(Self::By(clauses))
    }

    /// Returns what a file's mode becomes.
    pub fn apply(&self, mode: u32, is_directory: bool) -> u32 {
        match self {
            Self::To(mode) => *mode,
            Self::By(clauses) => clauses
                .iter()
                .fold(mode, |mode, clause| clause.apply(mode, is_directory)),
        }
    }
}

impl What {
    fn parse(letters: &str) -> Option<Self> {
        match letters {
            "u" => return Some(Self::CopyOf(6)),
            "g" => return Some(Self::CopyOf(3)),
            "o" => return Some(Self::CopyOf(0)),
            _ => {}
        }
        let mut bits = 0;
        let mut conditional = false;
        for letter in letters.chars() {
            match letter {
                'r' => bits |= 0o444,
                'w' => bits |= 0o222,
                'x' => bits |= 0o111,
                'X' => conditional = true,
                's' => bits |= 0o6000,
                't' => bits |= 0o1000,
                _ => return None,
            }
        }
        Some(Self::Bits { bits, conditional })
    }
}

impl Clause {
    fn apply(self, mode: u32, is_directory: bool) -> u32 {
        let bits = match self.what {
            What::Bits { bits, conditional } => {
                let executes = conditional && (is_directory || mode & 0o111 != 0);
                bits | if executes { 0o111 } else { 0 }
            }
            What::CopyOf(shift) => {
                let class = mode >> shift & 7;
                class << 6 | class << 3 | class
            }
        };
        // The sticky bit is nobody's in particular.
        let bits = bits & (self.who | 0o1000);
        match self.operator {
            '+' => mode | bits,
            '-' => mode & !bits,
            _ => mode & !(self.who & 0o777) | bits,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_changed_as_chmod_changes_them() {
        for (text, mode, is_directory, expected) in [
            ("755", 0o600, false, 0o755),
            ("4711", 0o600, false, 0o4711),
            ("u=rwX,go=rX", 0o640, false, 0o644),
            ("u=rwX,go=rX", 0o740, false, 0o755),
            ("u=rwX,go=rX", 0o700, true, 0o755),
            ("a+x,u-w", 0o644, false, 0o555),
            ("+x", 0o644, false, 0o755),
            ("g=u", 0o640, false, 0o660),
            ("o=", 0o777, false, 0o770),
            ("u+s,+t", 0o755, false, 0o5755),
            ("g-w+x", 0o664, false, 0o654),
        ] {
            assert_eq!(
                Change::parse(text).unwrap().apply(mode, is_directory),
                expected,
                "{text} of {mode:o}"
            );
        }
        for wrong in ["", "9", "77777", "u", "z+x", "u+q", "u=rw,"] {
            assert_eq!(Change::parse(wrong), None, "{wrong}");
        }
    }
}
