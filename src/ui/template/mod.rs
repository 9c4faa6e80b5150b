//! Go's `text/template`, as far as docker's `--format` goes: fields, variables, pipes, `if`, `range`, `with`, and
//! the functions that docker adds.
//!
//! The language: <https://pkg.go.dev/text/template>; the functions:
//! <https://docs.docker.com/engine/cli/formatting/>.

mod evaluate;
mod functions;
mod parse;

use serde_json::Value;

pub use evaluate::Methods;

/// Why a template cannot be read or filled in.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    #[error("template parsing error: template: :{line}: {reason}")]
    Parse { line: usize, reason: String },
    #[error("template parsing error: template: :{line}:{column}: executing \"\" at <{text}>: {reason}")]
    Execute {
        line: usize,
        column: usize,
        text: String,
        reason: String,
    },
}

impl TemplateError {
    fn execute(line: usize, text: impl Into<String>, reason: String) -> Self {
        Self::Execute {
            line,
            column: 0,
            text: text.into(),
            reason,
        }
    }

    /// Adds where in the template the words stand that could not be filled in; of a chain of fields, the last.
    fn placed(mut self, template: &str) -> Self {
        if let Self::Execute { line, column, text, .. } = &mut self
            && let Some(source) = template.lines().nth(line.saturating_sub(1))
        {
            let is_whole = |end: usize| !source[end..].starts_with(|next: char| next.is_alphanumeric() || next == '_');
            let mut places = source.match_indices(text.as_str()).map(|(start, _)| start + text.len());
            if let Some(end) = places.find(|end| is_whole(*end)) {
                *column = end - text.len() + text.rfind('.').unwrap_or(0);
            }
        }
        self
    }

    /// Adds what Go calls the data whose field was asked for.
    pub fn of(mut self, kind: &str) -> Self {
        if let Self::Execute { text, reason, .. } = &mut self
            && let Some(field) = reason.strip_prefix("can't evaluate field ")
        {
            let is_row = text.strip_prefix('.') == Some(field) || text.starts_with(&format!(".{field}."));
            reason.push_str(&format!(" in type {}", if is_row { kind } else { "string" }));
        }
        self
    }
}

/// A template that was read.
#[derive(Debug)]
pub struct Template {
    nodes: Vec<parse::Node>,
    text: String,
}

impl Template {
    /// Reads a template.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        Ok(Self {
            nodes: parse::parse(text)?,
            text: text.to_owned(),
        })
    }

    /// Fills the template in with `data`. `methods` answers what is asked of the data with arguments, such as
    /// `.Label "name"`.
    pub fn render(&self, data: &Value, methods: Methods<'_>) -> Result<String, TemplateError> {
        evaluate::render(&self.nodes, data, methods).map_err(|error| error.placed(&self.text))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn render(template: &str) -> Result<String, String> {
        let data = json!({
            "Name": "p-web-1", "State": "running", "ExitCode": 0, "Healthy": false,
            "Publishers": [{"URL": "0.0.0.0", "TargetPort": 80}, {"URL": "::", "TargetPort": 81}],
            "Networks": ["a", "b"], "Map": {"k": "v", "a": 1}, "Empty": "",
        });
        let methods = |_: &Value, name: &str, arguments: &[Value]| match (name, arguments) {
            ("Label", [Value::String(label)]) => Some(json!(format!("<{label}>"))),
            _ => None,
        };
        Template::parse(template)
            .and_then(|template| template.render(&data, &methods))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_template_is_filled_in_as_go_does() {
        for (template, expected) in [
            ("plain", "plain"),
            ("{{.Name}} {{ .State }}", "p-web-1 running"),
            ("{{upper .Name}}|{{.Name | upper | lower | title}}", "P-WEB-1|P-Web-1"),
            (
                "{{json .Publishers}}",
                r#"[{"URL":"0.0.0.0","TargetPort":80},{"URL":"::","TargetPort":81}]"#,
            ),
            (
                "{{range .Publishers}}{{.URL}}:{{.TargetPort}} {{end}}",
                "0.0.0.0:80 :::81 ",
            ),
            (
                "{{range $i, $n := .Networks}}{{if $i}},{{end}}{{$i}}={{$n}}{{end}}",
                "0=a,1=b",
            ),
            ("{{range $k, $v := .Map}}{{$k}}={{$v}};{{end}}", "a=1;k=v;"),
            ("{{range .Empty}}x{{else}}none{{end}}", "none"),
            (
                "{{if eq .State \"running\" \"paused\"}}up{{else if .Empty}}?{{else}}down{{end}}",
                "up",
            ),
            ("{{if and .Name (not .Healthy)}}yes{{end}}", "yes"),
            ("{{if or .Empty .ExitCode}}x{{else}}y{{end}}", "y"),
            ("{{with .Map}}{{.k}}{{$.Name}}{{end}}", "vp-web-1"),
            ("{{.Label \"com.x\"}}", "<com.x>"),
            (
                "{{join .Networks \"+\"}} {{len .Networks}} {{index .Networks 1}}",
                "a+b 2 b",
            ),
            ("{{truncate .Name 5}}{{slice .Name 0 2}}", "p-webp-"),
            ("{{pad .State 1 2}}|", " running  |"),
            (
                "{{printf \"%-10s|%5d|%q|%v\" .State 7 .Name .Networks}}",
                "running   |    7|\"p-web-1\"|[a b]",
            ),
            ("{{println .Name}}", "p-web-1\n"),
            ("a {{- .Name -}} b", "ap-web-1b"),
            ("{{/* nothing */}}x", "x"),
            ("{{$x := .Name}}{{$x}}{{$x = 3}}{{$x}}", "p-web-13"),
            ("{{split \"a,b\" \",\"}}", "[a b]"),
            ("{{.Map}} {{.Networks}} {{.Healthy}}", "map[a:1 k:v] [a b] false"),
            ("{{`raw\\n`}}{{\"a\\tb\"}}{{'a'}}", "raw\\na\tb97"),
            ("{{lt 1 2}}{{gt 1.5 1}}{{ne \"a\" \"b\"}}", "truetruetrue"),
            ("{{range .Networks}}{{if eq . \"b\"}}{{break}}{{end}}{{.}}{{end}}", "a"),
            ("{{(index .Publishers 0).URL}}", "0.0.0.0"),
            ("{{html \"<a>\"}}", "&lt;a&gt;"),
        ] {
            assert_eq!(render(template).as_deref(), Ok(expected), "{template}");
        }
    }

    #[test]
    fn a_bad_template_says_what_is_wrong_with_it() {
        for (template, expected) in [
            ("{{.Name", "template parsing error: template: :1: unclosed action"),
            (
                "{{nope .Name}}",
                "template parsing error: template: :1: function \"nope\" not defined",
            ),
            ("{{if .Name}}x", "template parsing error: template: :1: unexpected EOF"),
            ("x\n{{end}}", "template parsing error: template: :2: unexpected {{end}}"),
            (
                "{{$x}}",
                "template parsing error: template: :1: undefined variable \"$x\"",
            ),
            (
                "{{}}",
                "template parsing error: template: :1: missing value for command",
            ),
            (
                "{{.Nope}}",
                "template parsing error: template: :1:2: executing \"\" at <.Nope>: can't evaluate field Nope",
            ),
            (
                "a\nb {{.Map.x.Nope}}",
                "template parsing error: template: :2:10: executing \"\" at <.Map.x.Nope>: can't evaluate field x",
            ),
            (
                "{{index .Networks 7}}",
                "template parsing error: template: :1:2: executing \"\" at <index>: error calling index: index out of range: 7",
            ),
        ] {
            assert_eq!(render(template), Err(expected.to_owned()), "{template}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_template_breaks_the_reader(template in "[{}.a|\"$ ()ifrange0-9:=,`'-]{0,40}") {
            let _ = render(&template);
        }
    }
}
