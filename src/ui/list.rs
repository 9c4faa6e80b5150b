//! Lists as docker prints them: a table, JSON line by line, or a template of the user's.

use serde_json::Value;

use super::template::{Template, TemplateError};
use super::{table, template};

/// What a list can show: the fields with their headings, and the default table.
pub struct Layout<'a> {
    /// Field and heading. A field without a heading of its own is headed by its name.
    pub headings: &'a [(&'a str, &'a str)],
    /// The template of the table that is shown when nothing else is asked for.
    pub table: &'a str,
    /// The template of `raw`, where that is a format.
    pub raw: &'a str,
    /// What Go calls a row, as errors in templates name it.
    pub kind: &'a str,
}

/// Prints `rows` as `format` says: `""` or `table`, `table TEMPLATE`, `json`, or a template.
pub fn render(
    layout: &Layout<'_>,
    format: &str,
    rows: &[Value],
    methods: template::Methods<'_>,
) -> Result<String, TemplateError> {
    let (is_table, format) = match format {
        "" | "table" => (true, layout.table),
        "json" => (false, "{{json .}}"),
        "raw" if !layout.raw.is_empty() => (false, layout.raw),
        format => match format.strip_prefix("table") {
            Some(template) => (true, template.trim()),
            None => (false, format.trim()),
        },
    };
    let template = Template::parse(&format.replace("\\t", "\t").replace("\\n", "\n"))?;
    let mut text = String::new();
    if is_table {
        let mut headings = serde_json::Map::new();
        for (field, heading) in layout.headings {
            headings.insert((*field).to_owned(), (*heading).into());
        }
        // `.Label "com.example.key"` is headed by what it asks for.
        let heading = |_: &Value, name: &str, arguments: &[Value]| match arguments {
            [Value::String(label), ..] => {
                let label = label.rsplit('.').next().unwrap_or(label);
                Some(label.replace(['-', '_'], " ").into())
            }
            _ => Some(Value::from(name.to_uppercase())),
        };
        text.push_str(&template.render(&headings.into(), &heading)?);
        text.push('\n');
    }
    for row in rows {
        let row = template.render(row, methods).map_err(|error| error.of(layout.kind));
        text.push_str(&row?);
        text.push('\n');
    }
    Ok(if is_table { table::align(&text, 10, 3) } else { text })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn list(format: &str) -> String {
        let layout = Layout {
            headings: &[("Name", "NAME"), ("ID", "CONTAINER ID")],
            table: "{{.Name}}\t{{.ID}}",
            raw: "",
            kind: "*list.Row",
        };
        let rows = [json!({"Name": "a", "ID": "1"}), json!({"Name": "b", "ID": "2"})];
        let methods = |_: &Value, name: &str, _: &[Value]| (name == "Label").then(|| json!("x"));
        render(&layout, format, &rows, &methods).unwrap_or_else(|error| error.to_string())
    }

    #[test]
    fn every_format_has_its_shape() {
        assert_eq!(list(""), "NAME      CONTAINER ID\na         1\nb         2\n");
        assert_eq!(
            list("table {{.ID}}\\t{{.Name}}"),
            "CONTAINER ID   NAME\n1              a\n2              b\n"
        );
        assert_eq!(
            list("json"),
            "{\"Name\":\"a\",\"ID\":\"1\"}\n{\"Name\":\"b\",\"ID\":\"2\"}\n"
        );
        assert_eq!(list("{{.Name}}"), "a\nb\n");
        assert_eq!(list("table {{.Label \"com.my-label\"}}"), "my label\nx\nx\n");
        assert!(list("{{.Nope}}").contains("can't evaluate field Nope in type *list.Row"));
    }
}
