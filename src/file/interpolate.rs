//! Puts variables into the values of a Compose file, and gives values their types where Compose expects one.
//!
//! Keys are left alone. Whatever is wrong is collected, each with the place of the reference in the file.

use super::template::{Lookup, MAX_VALUE_BYTES, Operator, Part, Reference, TemplateError, parse_template, substitute};
use crate::yaml::{Diagnostic, Node, Sources, Span, Value, go_quote};

/// Puts variables into nodes, and remembers what was wrong or doubtful.
pub struct Interpolator<'a> {
    sources: &'a Sources,
    lookup: &'a Lookup<'a>,
    pub errors: Vec<Diagnostic>,
    pub warnings: Vec<Diagnostic>,
    /// The length of all values with variables in them.
    filled_in: usize,
}

impl<'a> Interpolator<'a> {
    pub fn new(sources: &'a Sources, lookup: &'a Lookup<'a>) -> Self {
        Self {
            sources,
            lookup,
            errors: Vec::new(),
            warnings: Vec::new(),
            filled_in: 0,
        }
    }

    /// Interpolates the value that stands at `path`.
    pub fn at<'n>(&mut self, node: &'n mut Node, path: &[&'n str]) {
        let mut path = path.to_vec();
        self.node(node, &mut path);
    }

    fn node<'n>(&mut self, node: &'n mut Node, path: &mut Vec<&'n str>) {
        if let Value::String(text) = &node.value {
            if let Some(value) = self.string(text, node.span, path) {
                node.value = value;
            }
            return;
        }
        match &mut node.value {
            Value::Sequence(items) => {
                for item in items {
                    path.push("[]");
                    self.node(item, path);
                    path.pop();
                }
            }
            Value::Mapping(mapping) => {
                for (key, entry) in mapping.iter_mut() {
                    path.push(key);
                    self.node(&mut entry.node, path);
                    path.pop();
                }
            }
            _ => {}
        }
    }

    /// Returns a string's value; nothing if it stays as it is.
    fn string(&mut self, text: &str, span: Span, path: &[&str]) -> Option<Value> {
        // One complaint about it is enough.
        if self.filled_in > 4 * MAX_VALUE_BYTES {
            return None;
        }
        let cast = Cast::at(path);
        let value = if text.contains('$') {
            let mut unset = Vec::new();
            let result = substitute(text, self.lookup, &mut |reference| {
                unset.push((reference.name.to_owned(), reference.text.to_owned()));
            });
            for (name, written) in unset {
                let message = unset_message(&name);
                let place = locate(self.sources, span, &written);
                self.warnings.push(Diagnostic::warning(message).at(place));
            }
            let result = result.and_then(|value| {
                self.filled_in += value.len();
                match self.filled_in > 4 * MAX_VALUE_BYTES {
                    true => Err(TemplateError::TooLong),
                    false => Ok(value),
                }
            });
            match result {
                Ok(value) => value,
                Err(error) => {
                    let diagnostic = self.template_error(&error, span, path);
                    self.errors.push(diagnostic);
                    return None;
                }
            }
        } else if cast.is_some() {
            text.to_owned()
        } else {
            return None;
        };
        let Some(cast) = cast else {
            return Some(Value::String(value));
        };
        match cast.apply(&value) {
            Ok(typed) => {
                if let (Cast::Boolean, Value::Bool(meaning)) = (cast, &typed)
                    && !value.eq_ignore_ascii_case(if *meaning { "true" } else { "false" })
                {
                    let message = format!(
                        "{} for boolean is not supported by YAML 1.2, please use `{meaning}`",
                        go_quote(&value)
                    );
                    self.warnings.push(Diagnostic::warning(message).at(span));
                }
                Some(typed)
            }
            Err(reason) => {
                let message = format!(
                    "error while interpolating {}: failed to cast to expected type: {reason}",
                    path.join(".")
                );
                let mut diagnostic = Diagnostic::error(message).at(span);
                if value != text {
                    diagnostic = diagnostic.label(format!("its value is {}", go_quote(&value)));
                }
                self.errors.push(diagnostic);
                None
            }
        }
    }

    fn template_error(&self, error: &TemplateError, span: Span, path: &[&str]) -> Diagnostic {
        let path = path.join(".");
        match error {
            TemplateError::Invalid(template) => {
                let message = format!(
                    "invalid interpolation format for {path}.\nYou may need to escape any $ with another $.\n{template}"
                );
                let place = locate(self.sources, span, template);
                Diagnostic::error(message)
                    .at(place)
                    .help("write `$$` for a dollar sign that is meant as one")
            }
            TemplateError::TooLong => Diagnostic::error(format!("error while interpolating {path}: {error}")).at(span),
            TemplateError::Required { variable, .. } => {
                let written = [format!("${{{variable}:?"), format!("${{{variable}?")];
                let place = written
                    .iter()
                    .map(|start| locate(self.sources, span, start))
                    .find(|place| *place != span)
                    .unwrap_or(span);
                Diagnostic::error(format!("error while interpolating {path}: {error}"))
                    .at(self.whole_reference(place))
                    .help(format!("set {variable} in the environment or in the .env file"))
            }
        }
    }

    /// Extends the place of `${NAME?` to its closing brace, if that stands on the same line.
    fn whole_reference(&self, place: Span) -> Span {
        let text = self.sources.text(place.source);
        let rest = text.get(place.start as usize..).unwrap_or("");
        let line = rest.split('\n').next().unwrap_or(rest);
        match (line.starts_with("${"), line.find('}')) {
            (true, Some(end)) => {
                let start = place.start as usize;
                Span::new(place.source, start, start + end + 1)
            }
            _ => place,
        }
    }
}

/// Returns docker compose's words about a variable without a value.
pub fn unset_message(name: &str) -> String {
    format!(
        "The {} variable is not set. Defaulting to a blank string.",
        go_quote(name)
    )
}

/// Returns where `written` stands inside `span`, or all of `span` if escapes hide it.
fn locate(sources: &Sources, span: Span, written: &str) -> Span {
    match sources.slice(span).find(written) {
        Some(at) if !written.is_empty() => {
            let start = span.start as usize + at;
            Span::new(span.source, start, start + written.len())
        }
        _ => span,
    }
}

/// A type that Compose expects at some path, so that `tty: ${TTY}` becomes a boolean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cast {
    Boolean,
    Integer,
    Long,
    Float,
    Single,
}

/// Where compose-go casts (loader/interpolate.go); `*` is any name, `[]` any item.
const CASTS: &[(&[&str], Cast)] = &[
    (&["services", "*", "cpu_count"], Cast::Long),
    (&["services", "*", "cpu_percent"], Cast::Float),
    (&["services", "*", "cpu_period"], Cast::Long),
    (&["services", "*", "cpu_quota"], Cast::Long),
    (&["services", "*", "cpu_rt_period"], Cast::Long),
    (&["services", "*", "cpu_rt_runtime"], Cast::Long),
    (&["services", "*", "cpus"], Cast::Single),
    (&["services", "*", "cpu_shares"], Cast::Long),
    (&["services", "*", "init"], Cast::Boolean),
    (&["services", "*", "deploy", "replicas"], Cast::Integer),
    (
        &["services", "*", "deploy", "update_config", "parallelism"],
        Cast::Integer,
    ),
    (
        &["services", "*", "deploy", "update_config", "max_failure_ratio"],
        Cast::Float,
    ),
    (
        &["services", "*", "deploy", "rollback_config", "parallelism"],
        Cast::Integer,
    ),
    (
        &["services", "*", "deploy", "rollback_config", "max_failure_ratio"],
        Cast::Float,
    ),
    (
        &["services", "*", "deploy", "restart_policy", "max_attempts"],
        Cast::Integer,
    ),
    (
        &["services", "*", "deploy", "placement", "max_replicas_per_node"],
        Cast::Integer,
    ),
    (&["services", "*", "healthcheck", "retries"], Cast::Integer),
    (&["services", "*", "healthcheck", "disable"], Cast::Boolean),
    (&["services", "*", "oom_kill_disable"], Cast::Boolean),
    (&["services", "*", "oom_score_adj"], Cast::Long),
    (&["services", "*", "pids_limit"], Cast::Long),
    (&["services", "*", "ports", "[]", "target"], Cast::Integer),
    (&["services", "*", "privileged"], Cast::Boolean),
    (&["services", "*", "read_only"], Cast::Boolean),
    (&["services", "*", "scale"], Cast::Integer),
    (&["services", "*", "stdin_open"], Cast::Boolean),
    (&["services", "*", "tty"], Cast::Boolean),
    (&["services", "*", "ulimits", "*"], Cast::Integer),
    (&["services", "*", "ulimits", "*", "hard"], Cast::Integer),
    (&["services", "*", "ulimits", "*", "soft"], Cast::Integer),
    (&["services", "*", "volumes", "[]", "read_only"], Cast::Boolean),
    (&["services", "*", "volumes", "[]", "volume", "nocopy"], Cast::Boolean),
    (&["networks", "*", "external"], Cast::Boolean),
    (&["networks", "*", "internal"], Cast::Boolean),
    (&["networks", "*", "attachable"], Cast::Boolean),
    (&["networks", "*", "enable_ipv4"], Cast::Boolean),
    (&["networks", "*", "enable_ipv6"], Cast::Boolean),
    (&["volumes", "*", "external"], Cast::Boolean),
    (&["secrets", "*", "external"], Cast::Boolean),
    (&["configs", "*", "external"], Cast::Boolean),
];

impl Cast {
    fn at(path: &[&str]) -> Option<Self> {
        // Most paths have no type; the last step tells nearly all of them apart.
        let fits = |pattern: &[&str]| {
            let mut steps = pattern.iter().zip(path).rev();
            pattern.len() == path.len() && steps.all(|(wanted, step)| *wanted == "*" || wanted == step)
        };
        CASTS.iter().find(|(pattern, _)| fits(pattern)).map(|&(_, cast)| cast)
    }

    fn apply(self, text: &str) -> Result<Value, String> {
        match self {
            Self::Boolean => match text.to_lowercase().as_str() {
                "true" | "y" | "yes" | "on" => Ok(Value::Bool(true)),
                "false" | "n" | "no" | "off" => Ok(Value::Bool(false)),
                _ => Err(format!("invalid boolean: {text}")),
            },
            Self::Integer => integer(text, "Atoi"),
            Self::Long => integer(text, "ParseInt"),
            Self::Float => float(text).map(Value::Float),
            Self::Single => {
                // Go keeps 32 bits here and prints the shortest digits of them.
                let single = float(text)? as f32;
                if single.is_infinite() && !text.to_lowercase().contains("inf") {
                    return Err(out_of_range("ParseFloat", text));
                }
                Ok(Value::Float(single.to_string().parse().unwrap_or(f64::from(single))))
            }
        }
    }
}

fn out_of_range(function: &str, text: &str) -> String {
    format!("strconv.{function}: parsing {}: value out of range", go_quote(text))
}

fn integer(text: &str, function: &str) -> Result<Value, String> {
    use std::num::IntErrorKind::{NegOverflow, PosOverflow};
    match text.parse::<i64>() {
        Ok(number) => Ok(Value::Int(number.into())),
        Err(error) if matches!(error.kind(), PosOverflow | NegOverflow) => Err(out_of_range(function, text)),
        Err(_) => Err(format!(
            "strconv.{function}: parsing {}: invalid syntax",
            go_quote(text)
        )),
    }
}

fn float(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number.is_infinite() && !text.to_lowercase().contains("inf") => {
            Err(out_of_range("ParseFloat", text))
        }
        Ok(number) => Ok(number),
        Err(_) => Err(format!(
            "strconv.ParseFloat: parsing {}: invalid syntax",
            go_quote(text)
        )),
    }
}

/// A variable that a file mentions, for `config --variables`.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Variable {
    pub name: String,
    #[serde(rename = "defaultvalue")]
    pub default_value: String,
    /// What `${NAME+word}` puts in place of a value.
    #[serde(rename = "presencevalue")]
    pub presence_value: String,
    pub required: bool,
}

/// Returns every variable that the values of a document mention, in the order they are met; those inside the words
/// of others too.
pub fn variables(root: &Node) -> Vec<Variable> {
    let mut found = Vec::new();
    collect(root, &mut found);
    found
}

fn collect(node: &Node, found: &mut Vec<Variable>) {
    match &node.value {
        Value::String(text) => {
            for part in parse_template(text).unwrap_or_default() {
                if let Part::Reference(reference) = part {
                    collect_reference(&reference, found);
                }
            }
        }
        Value::Sequence(items) => items.iter().for_each(|item| collect(item, found)),
        Value::Mapping(mapping) => {
            mapping.iter().for_each(|(_, entry)| collect(&entry.node, found));
        }
        Value::Null | Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Timestamp(_) => {}
    }
}

fn collect_reference(reference: &Reference<'_>, found: &mut Vec<Variable>) {
    let mut variable = Variable {
        name: reference.name.to_owned(),
        ..Variable::default()
    };
    if let Some(word) = &reference.word {
        match word.operator {
            Operator::Default => variable.default_value = word.text.to_owned(),
            Operator::Alternate => variable.presence_value = word.text.to_owned(),
            Operator::Required => variable.required = true,
        }
    }
    found.push(variable);
    for part in reference.word.iter().flat_map(|word| &word.parts) {
        if let Part::Reference(nested) = part {
            collect_reference(nested, found);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml::parse;

    fn interpolate(text: &str) -> (Node, Vec<String>) {
        let mut sources = Sources::new();
        let id = sources.add("c.yaml", text);
        let mut root = parse(&mut sources, id).unwrap().remove(0);
        let lookup = |name: &str| (name == "FOO").then(|| "first".to_owned());
        let mut interpolator = Interpolator::new(&sources, &lookup);
        interpolator.at(&mut root, &[]);
        let found = interpolator.errors.into_iter().chain(interpolator.warnings);
        let messages = found.map(|diagnostic| {
            let (line, column) = sources.position(diagnostic.span.unwrap());
            format!("{line}:{column} {}", diagnostic.message)
        });
        let messages = messages.collect();
        (root, messages)
    }

    #[test]
    fn values_are_filled_in_and_keys_left_alone() {
        let (root, messages) = interpolate("$FOO: [\"a ${FOO}\", 1]\n");
        let items = root.get("$FOO").unwrap().as_sequence().unwrap();
        assert_eq!(items[0].as_str(), Some("a first"));
        assert_eq!(messages, [""; 0]);
    }

    #[test]
    fn a_typed_attribute_gets_its_type_from_text() {
        let (root, messages) =
            interpolate("services:\n  s:\n    tty: \"${T:-yes}\"\n    cpus: '0.5'\n    scale: \"010\"\n    init: 1x\n");
        let service = root.get("services").unwrap().get("s").unwrap();
        assert_eq!(service.get("tty").unwrap().as_bool(), Some(true));
        assert_eq!(service.get("cpus").unwrap().value, Value::Float(0.5));
        assert_eq!(service.get("scale").unwrap().as_int(), Some(10));
        assert_eq!(
            messages,
            [
                "6:11 error while interpolating services.s.init: failed to cast to expected type: invalid boolean: 1x",
                "3:10 \"yes\" for boolean is not supported by YAML 1.2, please use `true`",
            ]
        );
    }

    #[test]
    fn what_is_missing_is_shown_where_it_is_used() {
        let (_, messages) = interpolate("a: x $U y\nb: [\"${V:?say}\", \"${\"]\n");
        assert_eq!(
            messages,
            [
                "2:6 error while interpolating b.[]: required variable V is missing a value: say",
                "2:19 invalid interpolation format for b.[].\nYou may need to escape any $ with another $.\n${",
                "1:6 The \"U\" variable is not set. Defaulting to a blank string.",
            ]
        );
    }

    #[test]
    fn all_variables_of_a_file_are_found() {
        let mut sources = Sources::new();
        let id = sources.add("c.yaml", "a: $A ${B:-x${C}} ${D?}\nb: [\"${E+y}\"]\n");
        let root = parse(&mut sources, id).unwrap().remove(0);
        let names: Vec<String> = variables(&root)
            .into_iter()
            .map(|variable| format!("{} {:?}", variable.name, variable.default_value))
            .collect();
        assert_eq!(names, ["A \"\"", "B \"x${C}\"", "C \"\"", "D \"\"", "E \"\""]);
    }
}
