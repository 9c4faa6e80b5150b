//! Questions to the user.

use std::io::{self, BufRead, Write};

use super::stream;

/// Asks a question that is answered with yes or no; whatever is neither is `default`.
// docker/compose pkg/prompt: a pipe's answer is read without more ado.
pub fn confirm(question: &str, default: bool) -> io::Result<bool> {
    let choice = match (stream::out_is_terminal(), default) {
        (false, _) => "",
        (true, true) => " [Y/n] ",
        (true, false) => " [y/N] ",
    };
    stream::out(format!("{question}{choice}"))?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    io::stdout().flush()?;
    Ok(match answer.trim().to_lowercase().as_str() {
        "y" | "yes" | "1" | "t" | "true" => true,
        "n" | "no" | "0" | "f" | "false" => false,
        _ => default,
    })
}
