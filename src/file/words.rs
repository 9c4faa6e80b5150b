//! Splits a command line into words, as docker compose splits `command` and `entrypoint`.
//!
//! It is not a shell: no variables, no globbing, no comments, and the line ends where a shell would start something
//! new (mattn/go-shellwords).

/// A command line with an open quote, or a parenthesis that only a shell could make sense of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid command line string")]
pub struct WordsError;

/// Returns the words of a line, up to the first unquoted `;`, `&`, `|`, `<` or `>`.
///
/// # Errors
///
/// Refuses a line that ends inside a quote or behind a backslash.
pub fn split_words(line: &str) -> Result<Vec<String>, WordsError> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut started = false;
    let mut escaped = false;
    let (mut single, mut double, mut backquote, mut substitution) = (false, false, false, false);
    for character in line.chars() {
        if escaped {
            word.push(character);
            escaped = false;
            started = true;
            continue;
        }
        let quoted = single || double || backquote || substitution;
        match character {
            '\\' if single => word.push('\\'),
            '\\' => escaped = true,
            ' ' | '\t' | '\r' | '\n' => {
                if quoted {
                    word.push(character);
                } else if started {
                    words.push(std::mem::take(&mut word));
                    started = false;
                }
            }
            '"' if !single && !substitution => {
                started |= double;
                double = !double;
            }
            '\'' if !double && !substitution => {
                started |= single;
                single = !single;
            }
            ';' | '&' | '|' | '<' | '>' if !quoted => {
                // `2>` redirects a stream: the number is no word.
                if character == '>' && word.starts_with(|first: char| first.is_ascii_digit()) {
                    started = false;
                }
                break;
            }
            '(' if !single && !double && !backquote => {
                if substitution || !word.ends_with('$') {
                    return Err(WordsError);
                }
                substitution = true;
                word.push('(');
            }
            _ => {
                match character {
                    '`' if !single && !double && !substitution => backquote = !backquote,
                    ')' if !single && !double && !backquote => substitution = !substitution,
                    _ => {}
                }
                started = true;
                word.push(character);
            }
        }
    }
    if started {
        words.push(word);
    }
    if escaped || single || double || backquote || substitution {
        return Err(WordsError);
    }
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_becomes_words() {
        for (line, expected) in [
            ("", vec![]),
            ("echo  a\tb", vec!["echo", "a", "b"]),
            ("a # b", vec!["a", "#", "b"]),
            ("a | b > c", vec!["a"]),
            ("a && b", vec!["a"]),
            ("a 2> b", vec!["a"]),
            ("sh -c 'echo \"$X\" | cat'", vec!["sh", "-c", "echo \"$X\" | cat"]),
            ("\"a b\" 'c d' e\\ f ''", vec!["a b", "c d", "e f", ""]),
            ("a$(b c)d", vec!["a$(b c)d"]),
            (r"a\nb", vec!["anb"]),
            ("`a b`", vec!["`a b`"]),
            ("*.txt $HOME", vec!["*.txt", "$HOME"]),
        ] {
            assert_eq!(split_words(line).unwrap(), expected, "{line:?}");
        }
    }

    #[test]
    fn an_open_quote_is_refused() {
        for line in ["'a", "\"a", "a\\", "`a", "$(a", "(a)", "a)"] {
            assert_eq!(split_words(line), Err(WordsError), "{line:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_line_makes_it_panic(line in "[a'\"\\\\ `()$;>2]{0,20}|\\PC*") {
            let _ = split_words(&line);
        }
    }
}
