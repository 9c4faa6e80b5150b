//! What a person can do about a message whose words are docker compose's.
//!
//! The messages are kept because scripts and people search for them; many say what Go found and not what to write.

use crate::yaml::{Diagnostic, Sources, closest};

/// Leaves one complaint about each place: an alias leads to the same place from several services.
pub fn once_per_place(diagnostics: &mut Vec<Diagnostic>) {
    let mut kept: Vec<Diagnostic> = Vec::with_capacity(diagnostics.len());
    for diagnostic in diagnostics.drain(..) {
        // The same complaint in two places differs in the path it names, not behind it.
        let gist = |diagnostic: &Diagnostic| {
            let message = diagnostic.message.as_str();
            message
                .rsplit_once(": ")
                .map_or(message, |(_, rest)| rest)
                .split_once(' ')
                .map(|(_, rest)| rest.to_owned())
        };
        let known = kept
            .iter_mut()
            .find(|known| known.span.is_some() && known.span == diagnostic.span && gist(known) == gist(&diagnostic));
        match known {
            Some(known) if known.notes.len() < 3 => known.notes.push(format!("also: {}", diagnostic.message)),
            Some(_) => {}
            None => kept.push(diagnostic),
        }
    }
    *diagnostics = kept;
}

/// Adds help to a diagnostic that has none.
pub fn advise(diagnostic: &mut Diagnostic, sources: &Sources) {
    if diagnostic.help.is_some() {
        return;
    }
    let written = diagnostic.span.map_or("", |span| sources.slice(span));
    diagnostic.help = help(&diagnostic.message, written);
}

fn help(message: &str, written: &str) -> Option<String> {
    let says = |words: &str| message.contains(words);
    let is_scalar = !written.is_empty() && !written.contains(['\n', '[', '{', '"', '\'']) && !written.contains(": ");
    let advice = if says("must be one of") {
        return choice(message, written);
    } else if says("invalid jsonType time.Time") || (says("must be a string") && is_scalar) {
        return Some(format!("put it in quotes: `\"{written}\"`"));
    } else if says(" must be a array") && is_scalar {
        return Some(format!("write a list: `[{written}]`"));
    } else if says(" must be a array") {
        "write a list: one item a line, each behind `- `"
    } else if says(" must be a null") {
        "write a text or a list of texts"
    } else if says(" must be a mapping") && written.trim().is_empty() {
        "nothing belongs to it: is what follows indented further?"
    } else if says(" must be a mapping") && written.starts_with('-') {
        "write `name: value` on each line, without the `- `"
    } else if says(" must be a mapping") && is_scalar {
        "write `name: value` pairs, indented, on the lines below"
    } else if says("invalid boolean") || says("must be a boolean") {
        "write `true` or `false`"
    } else if says("strconv.Atoi") || says("failed to cast to expected type: strconv.ParseInt") {
        "write a whole number"
    } else if says("failed to cast to expected type: strconv.ParseFloat") {
        "write a number such as `0.5`"
    } else if says(".mode\' strconv.ParseInt") {
        "write permission bits in octal, such as `0440`"
    } else if says("' time: ") || says("time: invalid duration") {
        "write a time with its units and no spaces: `10s`, `1m30s`"
    } else if says("' invalid size") || says("' invalid suffix") || says("' strconv.ParseFloat") {
        "write a size such as `512m` or `1.5g`"
    } else if says("Invalid ip address: localhost") {
        "write the address: `127.0.0.1`"
    } else if says("too many colons in address") {
        "put an IPv6 address in brackets: `[::1]:80:80`"
    } else if says("Invalid ip address") {
        "write an IPv4 address, or an IPv6 address in brackets"
    } else if says("Invalid ranges specified") {
        "both ranges must have the same length, or the container's be a single port"
    } else if says("Invalid containerPort") || says("Invalid hostPort") {
        "a port is a number up to 65535, a range runs upwards: `8000-8010`"
    } else if says("Invalid proto") {
        "write `tcp`, `udp` or `sctp`"
    } else if says("No port specified") {
        "write `PUBLISHED:TARGET`, or the target alone"
    } else if says("is missing a target port") {
        "the container's port must be from 1 to 65535"
    } else if says("empty section between colons") || says("invalid spec: ") || says("invalid empty volume spec") {
        "write `SOURCE:TARGET` or `SOURCE:TARGET:MODE`"
    } else if says("invalid command line string") {
        "close the quote or bracket, or write a list of words"
    } else if says("missing IP") {
        "write `name=address`"
    } else if says("invalid compose project") && says("mutually exclusive") || says("are mutually exclusive") {
        "keep one of the two"
    } else if says("one of file|environment") {
        "say where its content comes from, such as `file: ./name`"
    } else if says("circular reference") || says("Circular reference") {
        "put what both share into a service of its own"
    } else if says("services additional properties") {
        "a service's name has letters, digits, `.`, `_` and `-` only"
    } else if says("couldn't find env file") || (says("env file") && says("not found")) {
        "create the file, or write `required: false` beside its `path:`"
    } else if says("top-level object must be a mapping") {
        "a Compose file has sections such as `services:` at its top"
    } else if says("empty compose file") {
        "a Compose file needs at least one service under `services:`"
    } else {
        return None;
    };
    Some(advice.to_owned())
}

/// Returns which of the values that a message lists was probably meant.
fn choice(message: &str, written: &str) -> Option<String> {
    let (_, listed) = message.split_once("must be one of ")?;
    let values = || listed.split(", ").map(|value| value.trim_matches('\''));
    let word = written.trim_matches(['"', '\'']);
    let related = || values().find(|value| !word.is_empty() && (value.contains(word) || word.contains(*value)));
    let meant = closest(word, values()).or_else(related)?;
    Some(format!("did you mean `{meant}`?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_go_are_followed_by_what_to_write() {
        for (message, written, expected) in [
            ("services.a.image must be a string", "5", "put it in quotes: `\"5\"`"),
            ("services.a.cap_add must be a array", "ALL", "write a list: `[ALL]`"),
            (
                "x.condition value must be one of 'service_started', 'service_healthy'",
                "healthy",
                "did you mean `service_healthy`?",
            ),
            (
                "Invalid ip address: localhost",
                "localhost:80:80",
                "write the address: `127.0.0.1`",
            ),
        ] {
            assert_eq!(help(message, written).as_deref(), Some(expected), "{message}");
        }
        assert_eq!(help("something else", ""), None);
    }
}
