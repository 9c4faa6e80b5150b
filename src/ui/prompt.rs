//! Questions to the user.

use std::io::{self, BufRead, Write};

use super::stream;

/// Asks a question that is answered with yes or no; whatever is neither is `default`.
// docker/compose pkg/prompt: a pipe's answer is read without more ado.
pub fn confirm(question: &str, default: bool) -> io::Result<bool> {
    let is_terminal = stream::out_is_terminal();
    let choice = match (is_terminal, default) {
        (false, _) => "",
        (true, true) => " [Y/n] ",
        (true, false) => " [y/N] ",
    };
    stream::out(format!("{question}{choice}"))?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    io::stdout().flush()?;
    Ok(match answer.trim().to_lowercase().as_str() {
        "y" | "1" | "t" | "true" => true,
        // Said in full it counts where a person says it.
        "yes" if is_terminal => true,
        "n" | "no" | "0" | "f" | "false" => false,
        _ => default,
    })
}
