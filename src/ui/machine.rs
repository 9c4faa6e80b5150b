//! Diagnostics for programs: a list in JSON, or SARIF for code scanning.

use serde_json::{Value, json};

use crate::yaml::{Diagnostic, Severity, Sources, Span};

/// For whom diagnostics are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Form {
    /// A list of objects, for editors.
    Json,
    /// The Static Analysis Results Interchange Format, for CI.
    Sarif,
}

/// Returns the diagnostics as text in the form that is wanted.
pub fn diagnostics(form: Form, diagnostics: &[Diagnostic], sources: &Sources) -> String {
    let value = match form {
        Form::Json => Value::Array(diagnostics.iter().map(|one| object(one, sources)).collect()),
        Form::Sarif => sarif(diagnostics, sources),
    };
    let mut text = serde_json::to_string_pretty(&value).unwrap_or_default();
    text.push('\n');
    text
}

fn level(diagnostic: &Diagnostic) -> &'static str {
    match diagnostic.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    }
}

fn place(span: Span, sources: &Sources) -> Value {
    let (line, column) = sources.position(span);
    let end = Span {
        start: span.end,
        ..span
    };
    let (end_line, end_column) = sources.position(end);
    json!({
        "file": sources.name(span.source),
        "line": line,
        "column": column,
        "endLine": end_line,
        "endColumn": end_column,
    })
}

fn object(diagnostic: &Diagnostic, sources: &Sources) -> Value {
    let related: Vec<Value> = diagnostic
        .related
        .iter()
        .map(|(span, label)| json!({"message": label, "place": place(*span, sources)}))
        .collect();
    json!({
        "severity": level(diagnostic),
        "message": diagnostic.message,
        "place": diagnostic.span.map(|span| place(span, sources)),
        "help": diagnostic.help,
        "notes": diagnostic.notes,
        "related": related,
    })
}

fn sarif(diagnostics: &[Diagnostic], sources: &Sources) -> Value {
    let location = |span: Span| {
        let place = place(span, sources);
        json!({"physicalLocation": {
            "artifactLocation": {"uri": place["file"]},
            "region": {
                "startLine": place["line"],
                "startColumn": place["column"],
                "endLine": place["endLine"],
                "endColumn": place["endColumn"],
            },
        }})
    };
    let results: Vec<Value> = diagnostics
        .iter()
        .map(|diagnostic| {
            let text = match &diagnostic.help {
                Some(help) => format!("{}\n{help}", diagnostic.message),
                None => diagnostic.message.clone(),
            };
            let locations: Vec<Value> = diagnostic.span.into_iter().map(location).collect();
            json!({
                "ruleId": "compose-file",
                "level": level(diagnostic),
                "message": {"text": text},
                "locations": locations,
            })
        })
        .collect();
    json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": {"driver": {
                "name": "compose",
                "version": env!("CARGO_PKG_VERSION"),
                "rules": [{"id": "compose-file"}],
            }},
            "results": results,
        }],
    })
}
