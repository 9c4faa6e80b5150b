//! The functions of templates: Go's own and those that docker adds.

use serde_json::Value;

use crate::percent;

const NAMES: [&str; 31] = [
    "and", "eq", "ge", "gt", "html", "index", "join", "js", "json", "le", "len", "lower", "lt", "ne", "not", "or",
    "pad", "print", "printf", "println", "slice", "split", "title", "truncate", "upper", "urlquery", "table", "trim",
    "replace", "contains", "call",
];

/// Returns whether there is a function of that name.
pub fn exists(name: &str) -> bool {
    NAMES.contains(&name)
}

/// Calls a function.
pub fn call(name: &str, arguments: &[Value]) -> Result<Value, String> {
    let text = |at: usize| arguments.get(at).map(display).unwrap_or_default();
    let expect = |count: usize| {
        if arguments.len() == count {
            Ok(())
        } else {
            Err(format!(
                "wrong number of args for {name}: want {count} got {}",
                arguments.len()
            ))
        }
    };
    Ok(match name {
        "json" => {
            expect(1)?;
            json(&arguments[0]).into()
        }
        "upper" => text(0).to_uppercase().into(),
        "lower" => text(0).to_lowercase().into(),
        "title" => title(&text(0)).into(),
        "trim" => text(0).trim().into(),
        "table" => text(0).into(),
        "split" => {
            expect(2)?;
            text(0).split(text(1).as_str()).collect::<Vec<_>>().into()
        }
        "replace" => {
            expect(3)?;
            text(0).replace(&text(1), &text(2)).into()
        }
        "contains" => {
            expect(2)?;
            text(0).contains(&text(1)).into()
        }
        "join" => {
            expect(2)?;
            let Value::Array(items) = &arguments[0] else {
                return Err("expected a list".to_owned());
            };
            items.iter().map(display).collect::<Vec<_>>().join(&text(1)).into()
        }
        "truncate" => {
            expect(2)?;
            let length = usize::try_from(number(&arguments[1])?).unwrap_or(0);
            text(0).chars().take(length).collect::<String>().into()
        }
        "pad" => {
            expect(3)?;
            let source = text(0);
            if source.is_empty() {
                return Ok(source.into());
            }
            let blanks = |at: usize| number(&arguments[at]).map(|count| " ".repeat(count.clamp(0, 1000) as usize));
            format!("{}{source}{}", blanks(1)?, blanks(2)?).into()
        }
        "len" => {
            expect(1)?;
            match &arguments[0] {
                Value::String(text) => text.len().into(),
                Value::Array(items) => items.len().into(),
                Value::Object(map) => map.len().into(),
                other => return Err(format!("len of type {}", kind(other))),
            }
        }
        "index" => index(arguments)?,
        "slice" => slice(arguments)?,
        "not" => {
            expect(1)?;
            (!is_true(&arguments[0])).into()
        }
        "and" | "or" => {
            let decides = name == "or";
            let found = arguments.iter().find(|value| is_true(value) == decides);
            found
                .or(arguments.last())
                .cloned()
                .ok_or("wrong number of args: want at least 1 got 0")?
        }
        "eq" => {
            let (first, rest) = arguments.split_first().ok_or("missing argument for comparison")?;
            rest.iter().any(|other| equal(first, other)).into()
        }
        "ne" => {
            expect(2)?;
            (!equal(&arguments[0], &arguments[1])).into()
        }
        "lt" | "le" | "gt" | "ge" => {
            expect(2)?;
            let order = compare(&arguments[0], &arguments[1])?;
            match name {
                "lt" => order.is_lt(),
                "le" => order.is_le(),
                "gt" => order.is_gt(),
                _ => order.is_ge(),
            }
            .into()
        }
        "print" => print(arguments).into(),
        "println" => {
            let words: Vec<String> = arguments.iter().map(display).collect();
            format!("{}\n", words.join(" ")).into()
        }
        "printf" => {
            let format = text(0);
            printf(&format, arguments.get(1..).unwrap_or_default()).into()
        }
        "html" => escape(
            &print(arguments),
            &[
                ('&', "&amp;"),
                ('<', "&lt;"),
                ('>', "&gt;"),
                ('"', "&#34;"),
                ('\'', "&#39;"),
            ],
        )
        .into(),
        "js" => escape(
            &print(arguments),
            &[
                ('\\', "\\\\"),
                ('\'', "\\'"),
                ('"', "\\\""),
                ('\n', "\\n"),
                ('<', "\\u003C"),
                ('>', "\\u003E"),
            ],
        )
        .into(),
        "urlquery" => urlquery(&print(arguments)).into(),
        _ => return Err("not a function".to_owned()),
    })
}

/// Returns whether Go takes the value for true: not empty, not zero.
pub fn is_true(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(map) => !map.is_empty(),
    }
}

/// Prints a value as Go's `%v`.
pub fn display(value: &Value) -> String {
    match value {
        Value::Null => "<no value>".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(display).collect::<Vec<_>>().join(" ")),
        Value::Object(map) => {
            let mut pairs: Vec<(&String, &Value)> = map.iter().collect();
            pairs.sort_by_key(|(key, _)| *key);
            let pairs: Vec<String> = pairs
                .iter()
                .map(|(key, value)| format!("{key}:{}", display(value)))
                .collect();
            format!("map[{}]", pairs.join(" "))
        }
    }
}

/// Writes JSON as docker's `json` does: Go's, without HTML escapes.
pub fn json(value: &Value) -> String {
    // Go escapes these two, as JavaScript takes them for line ends.
    value
        .to_string()
        .replace('\u{2028}', "\\u2028")
        .replace('\u{2029}', "\\u2029")
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nil",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int",
        Value::String(_) => "string",
        Value::Array(_) => "slice",
        Value::Object(_) => "map",
    }
}

fn number(value: &Value) -> Result<i64, String> {
    value
        .as_i64()
        .ok_or_else(|| format!("wrong type for value; expected int; got {}", kind(value)))
}

/// Capitalises words as Go's `strings.Title`: a letter after what is neither letter nor digit nor underscore.
fn title(text: &str) -> String {
    let mut after_letter = false;
    text.chars()
        .flat_map(|letter| {
            let starts = !after_letter;
            after_letter = letter.is_alphanumeric() || letter == '_' || letter == '\'';
            if starts {
                letter.to_uppercase().collect::<Vec<_>>()
            } else {
                vec![letter]
            }
        })
        .collect()
}

fn index(arguments: &[Value]) -> Result<Value, String> {
    let (first, keys) = arguments.split_first().ok_or("index of untyped nil")?;
    let mut value = first;
    for key in keys {
        value = match value {
            Value::Object(map) => map.get(&display(key)).unwrap_or(&Value::Null),
            Value::Array(items) => {
                let at = number(key)?;
                usize::try_from(at)
                    .ok()
                    .and_then(|at| items.get(at))
                    .ok_or_else(|| format!("index out of range: {at}"))?
            }
            other => return Err(format!("can't index item of type {}", kind(other))),
        };
    }
    Ok(value.clone())
}

fn slice(arguments: &[Value]) -> Result<Value, String> {
    let (value, bounds) = arguments.split_first().ok_or("slice of untyped nil")?;
    let length = match value {
        Value::String(text) => text.len(),
        Value::Array(items) => items.len(),
        other => return Err(format!("can't slice item of type {}", kind(other))),
    };
    let bound = |at: usize, default: usize| match bounds.get(at) {
        None => Ok(default),
        Some(value) => {
            let bound = number(value)?;
            usize::try_from(bound)
                .ok()
                .filter(|&bound| bound <= length)
                .ok_or_else(|| format!("index out of range: {bound}"))
        }
    };
    let (start, end) = (bound(0, 0)?, bound(1, length)?);
    if start > end {
        return Err(format!("invalid slice index: {start} > {end}"));
    }
    Ok(match value {
        Value::String(text) => String::from_utf8_lossy(&text.as_bytes()[start..end]).into(),
        Value::Array(items) => items[start..end].to_vec().into(),
        _ => Value::Null,
    })
}

fn equal(left: &Value, right: &Value) -> bool {
    match (left.as_f64(), right.as_f64()) {
        (Some(left), Some(right)) => left == right,
        _ => left == right,
    }
}

fn compare(left: &Value, right: &Value) -> Result<std::cmp::Ordering, String> {
    match (left, right) {
        (Value::String(left), Value::String(right)) => Ok(left.cmp(right)),
        _ => match (left.as_f64(), right.as_f64()) {
            (Some(left), Some(right)) => left.partial_cmp(&right).ok_or("not comparable".to_owned()),
            _ => Err("incompatible types for comparison".to_owned()),
        },
    }
}

/// Joins as Go's `fmt.Sprint`: a blank between two operands of which neither is a text.
fn print(arguments: &[Value]) -> String {
    let mut text = String::new();
    for (at, argument) in arguments.iter().enumerate() {
        if at > 0 && !argument.is_string() && !arguments[at - 1].is_string() {
            text.push(' ');
        }
        text.push_str(&display(argument));
    }
    text
}

/// Formats as Go's `fmt.Sprintf`: flags `-`, `0`, `+`, width, precision, and the verbs `s v d q f t x`.
fn printf(format: &str, arguments: &[Value]) -> String {
    let mut text = String::new();
    let mut arguments = arguments.iter();
    let mut letters = format.chars().peekable();
    while let Some(letter) = letters.next() {
        if letter != '%' {
            text.push(letter);
            continue;
        }
        let (mut left, mut zero, mut plus) = (false, false, false);
        while let Some(flag) = letters.next_if(|flag| matches!(flag, '-' | '0' | '+' | ' ' | '#')) {
            left |= flag == '-';
            zero |= flag == '0';
            plus |= flag == '+';
        }
        let digits = |letters: &mut std::iter::Peekable<std::str::Chars<'_>>| {
            let mut number = None;
            while let Some(digit) = letters.next_if(char::is_ascii_digit) {
                number = Some((number.unwrap_or(0_usize) * 10 + digit as usize - '0' as usize).min(1000));
            }
            number
        };
        let width = digits(&mut letters).unwrap_or(0);
        let precision = letters.next_if_eq(&'.').map(|_| digits(&mut letters).unwrap_or(0));
        let Some(verb) = letters.next() else {
            text.push_str("%!(NOVERB)");
            break;
        };
        if verb == '%' {
            text.push('%');
            continue;
        }
        let Some(argument) = arguments.next() else {
            text.push_str(&format!("%!{verb}(MISSING)"));
            continue;
        };
        let mut formatted = verb_text(verb, argument, precision);
        if plus && argument.as_f64().is_some_and(|number| number >= 0.0) {
            formatted.insert(0, '+');
        }
        let missing = width.saturating_sub(formatted.chars().count());
        match () {
            () if left => formatted.push_str(&" ".repeat(missing)),
            () if zero && argument.is_number() => formatted.insert_str(0, &"0".repeat(missing)),
            () => formatted.insert_str(0, &" ".repeat(missing)),
        }
        text.push_str(&formatted);
    }
    text
}

fn verb_text(verb: char, argument: &Value, precision: Option<usize>) -> String {
    let cut = |text: String| match precision {
        Some(length) => text.chars().take(length).collect(),
        None => text,
    };
    match (verb, argument) {
        ('v' | 's', Value::String(text)) => cut(text.clone()),
        ('v', value) => display(value),
        ('s', Value::Array(_) | Value::Object(_)) => display(argument),
        ('q', Value::String(text)) => crate::ui::stream::quoted(text),
        ('d', Value::Number(number)) if !number.is_f64() => number.to_string(),
        ('f', Value::Number(number)) => {
            let digits = precision.unwrap_or(6);
            format!("{:.digits$}", number.as_f64().unwrap_or(0.0))
        }
        ('x', Value::Number(number)) => format!("{:x}", number.as_i64().unwrap_or(0)),
        ('t', Value::Bool(value)) => value.to_string(),
        (verb, value) => format!("%!{verb}({}={})", kind(value), display(value)),
    }
}

fn escape(text: &str, replacements: &[(char, &str)]) -> String {
    let mut escaped = String::new();
    for letter in text.chars() {
        match replacements.iter().find(|(from, _)| *from == letter) {
            Some((_, to)) => escaped.push_str(to),
            None => escaped.push(letter),
        }
    }
    escaped
}

fn urlquery(text: &str) -> String {
    percent::encoded(text).replace("%20", "+")
}
