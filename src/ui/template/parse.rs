//! From the text of a template to its nodes.

use serde_json::Value;

use super::TemplateError;
use super::functions;

/// A piece of a template.
#[derive(Debug)]
pub enum Node {
    Text(String),
    /// Prints a value.
    Action(Pipeline),
    /// `if`, `with`: the pipeline, what to do when it holds and when not.
    If(Pipeline, Vec<Node>, Vec<Node>),
    With(Pipeline, Vec<Node>, Vec<Node>),
    Range(Pipeline, Vec<Node>, Vec<Node>),
    Break,
    Continue,
}

/// Commands, each fed with the value of the one before; the result may be kept in variables.
#[derive(Debug)]
pub struct Pipeline {
    pub variables: Vec<String>,
    /// `=`: the variable exists already.
    pub assigns: bool,
    pub commands: Vec<Vec<Operand>>,
    pub line: usize,
}

/// One word of a command.
#[derive(Debug)]
pub enum Operand {
    Literal(Value),
    /// A function's name.
    Function(String),
    /// `.A.B`; without names the dot itself.
    Field(Vec<String>),
    /// `$x.A`.
    Variable(String, Vec<String>),
    /// `(pipeline).A`.
    Group(Box<Pipeline>, Vec<String>),
}

/// Nested deeper than this, a template is refused: reading and filling in recurse.
const DEPTH: usize = 100;

pub fn parse(text: &str) -> Result<Vec<Node>, TemplateError> {
    let pieces = pieces(text)?;
    let mut parser = Parser {
        pieces: pieces.into_iter().peekable(),
        variables: vec!["$".to_owned()],
        last_line: 1 + text.matches('\n').count(),
        depth: 0,
    };
    let (nodes, end) = parser.nodes()?;
    match end {
        Ending::Input => Ok(nodes),
        Ending::Closed(line) => Err(failure(line, "unexpected {{end}}")),
        Ending::Else(line, _) => Err(failure(line, "unexpected {{else}}")),
    }
}

fn failure(line: usize, reason: impl Into<String>) -> TemplateError {
    TemplateError::Parse {
        line,
        reason: reason.into(),
    }
}

/// Text, or what stands between double braces.
#[derive(Debug)]
enum Piece {
    Text(String),
    Action(String, usize),
}

/// Cuts the text at its actions, with the blanks trimmed that `{{-` and `-}}` ask for.
fn pieces(text: &str) -> Result<Vec<Piece>, TemplateError> {
    let mut pieces = Vec::new();
    let mut rest = text;
    let mut line = 1;
    let mut trim_start = false;
    loop {
        let (mut before, after) = match rest.split_once("{{") {
            Some((before, after)) => (before, Some(after)),
            None => (rest, None),
        };
        line += before.matches('\n').count();
        if trim_start {
            before = before.trim_start();
        }
        let Some(mut action) = after else {
            pieces.push(Piece::Text(before.to_owned()));
            return Ok(pieces);
        };
        if let Some(trimmed) = action
            .strip_prefix('-')
            .filter(|rest| rest.starts_with([' ', '\t', '\n']))
        {
            before = before.trim_end();
            action = trimmed;
        }
        pieces.push(Piece::Text(before.to_owned()));
        let end = action_end(action).ok_or_else(|| failure(line, "unclosed action"))?;
        let mut inside = &action[..end];
        rest = &action[end + 2..];
        trim_start = false;
        if let Some(trimmed) = inside
            .strip_suffix('-')
            .filter(|rest| rest.ends_with([' ', '\t', '\n']))
        {
            trim_start = true;
            inside = trimmed;
        }
        let trimmed = inside.trim();
        if !(trimmed.starts_with("/*") && trimmed.ends_with("*/")) {
            pieces.push(Piece::Action(inside.to_owned(), line));
        }
        line += action[..end].matches('\n').count();
    }
}

/// Finds the closing braces, which may also stand in quotes.
fn action_end(action: &str) -> Option<usize> {
    if action.trim_start().starts_with("/*") {
        let comment = action.find("*/")?;
        return action[comment..].find("}}").map(|at| comment + at);
    }
    let bytes = action.as_bytes();
    let mut at = 0;
    let mut quote = None;
    while at < bytes.len() {
        match (quote, bytes[at]) {
            (None, b'}') if bytes.get(at + 1) == Some(&b'}') => return Some(at),
            (None, letter @ (b'"' | b'`' | b'\'')) => quote = Some(letter),
            (Some(b'"' | b'\''), b'\\') => at += 1,
            (Some(open), letter) if open == letter => quote = None,
            _ => {}
        }
        at += 1;
    }
    None
}

struct Parser {
    pieces: std::iter::Peekable<std::vec::IntoIter<Piece>>,
    /// The variables that are known, the innermost last.
    variables: Vec<String>,
    last_line: usize,
    depth: usize,
}

/// What ended a list of nodes.
enum Ending {
    Input,
    Closed(usize),
    /// With what follows the word: `if …` for a chain.
    Else(usize, String),
}

impl Parser {
    fn nodes(&mut self) -> Result<(Vec<Node>, Ending), TemplateError> {
        let mut nodes = Vec::new();
        while let Some(piece) = self.pieces.next() {
            let (action, line) = match piece {
                Piece::Text(text) => {
                    if !text.is_empty() {
                        nodes.push(Node::Text(text));
                    }
                    continue;
                }
                Piece::Action(action, line) => (action, line),
            };
            let action = action.trim();
            let (word, rest) = action.split_once([' ', '\t', '\n']).unwrap_or((action, ""));
            match word {
                "end" => return Ok((nodes, Ending::Closed(line))),
                "else" => return Ok((nodes, Ending::Else(line, rest.trim().to_owned()))),
                "if" | "with" | "range" => nodes.push(self.block(word, rest, line)?),
                "break" => nodes.push(Node::Break),
                "continue" => nodes.push(Node::Continue),
                "" => return Err(failure(line, "missing value for command")),
                _ => nodes.push(Node::Action(self.pipeline(action, line)?)),
            }
        }
        Ok((nodes, Ending::Input))
    }

    fn block(&mut self, word: &str, condition: &str, line: usize) -> Result<Node, TemplateError> {
        self.depth += 1;
        if self.depth > DEPTH {
            return Err(failure(line, "nested too deep"));
        }
        let known = self.variables.len();
        let pipeline = self.pipeline(condition, line)?;
        let (body, end) = self.nodes()?;
        let otherwise = match end {
            Ending::Input => return Err(failure(self.last_line, "unexpected EOF")),
            Ending::Closed(_) => Vec::new(),
            Ending::Else(line, rest) => match rest.split_once([' ', '\t', '\n']) {
                // The chain's own {{end}} is ours too.
                Some((next @ ("if" | "with"), condition)) => vec![self.block(next, condition, line)?],
                _ => match self.nodes()? {
                    (nodes, Ending::Closed(_)) => nodes,
                    (_, Ending::Else(line, _)) => return Err(failure(line, "unexpected {{else}}")),
                    (_, Ending::Input) => return Err(failure(self.last_line, "unexpected EOF")),
                },
            },
        };
        self.variables.truncate(known);
        self.depth -= 1;
        Ok(match word {
            "if" => Node::If(pipeline, body, otherwise),
            "with" => Node::With(pipeline, body, otherwise),
            _ => Node::Range(pipeline, body, otherwise),
        })
    }

    fn pipeline(&mut self, text: &str, line: usize) -> Result<Pipeline, TemplateError> {
        let mut tokens = Tokens { rest: text, line };
        let pipeline = self.read_pipeline(&mut tokens, 0)?;
        match tokens.next()? {
            None => Ok(pipeline),
            Some(token) => Err(failure(line, format!("unexpected {token:?} in operand"))),
        }
    }

    fn read_pipeline(&mut self, tokens: &mut Tokens<'_>, depth: usize) -> Result<Pipeline, TemplateError> {
        let line = tokens.line;
        if depth > DEPTH {
            return Err(failure(line, "nested too deep"));
        }
        let mut pipeline = Pipeline {
            variables: Vec::new(),
            assigns: false,
            commands: Vec::new(),
            line,
        };
        self.declaration(tokens, &mut pipeline)?;
        let mut command = Vec::new();
        loop {
            let before = tokens.rest;
            match tokens.next()? {
                None => break,
                Some(Token::Close) => {
                    tokens.rest = before;
                    break;
                }
                Some(Token::Pipe) => {
                    if command.is_empty() {
                        return Err(failure(line, "missing value for command"));
                    }
                    pipeline.commands.push(std::mem::take(&mut command));
                }
                Some(Token::Open) => {
                    let group = self.read_pipeline(tokens, depth + 1)?;
                    if !matches!(tokens.next()?, Some(Token::Close)) {
                        return Err(failure(line, "unclosed left paren"));
                    }
                    command.push(Operand::Group(Box::new(group), tokens.fields()));
                }
                Some(Token::Literal(value)) => command.push(Operand::Literal(value)),
                Some(Token::Field(names)) => command.push(Operand::Field(names)),
                Some(Token::Variable(name, names)) => {
                    if !self.variables.contains(&name) {
                        return Err(failure(line, format!("undefined variable \"{name}\"")));
                    }
                    command.push(Operand::Variable(name, names));
                }
                Some(Token::Word(word)) => command.push(match word.as_str() {
                    "true" => Operand::Literal(true.into()),
                    "false" => Operand::Literal(false.into()),
                    "nil" => Operand::Literal(Value::Null),
                    _ if functions::exists(&word) => Operand::Function(word),
                    _ => return Err(failure(line, format!("function \"{word}\" not defined"))),
                }),
                Some(token) => return Err(failure(line, format!("unexpected {token:?} in operand"))),
            }
        }
        if command.is_empty() {
            return Err(failure(line, "missing value for command"));
        }
        pipeline.commands.push(command);
        // A variable is known after the pipeline that gives it its value.
        if !pipeline.assigns {
            self.variables.extend(pipeline.variables.iter().cloned());
        }
        Ok(pipeline)
    }

    /// Reads `$x :=`, `$x =` or `$i, $x :=`, if that is how the pipeline begins.
    fn declaration(&self, tokens: &mut Tokens<'_>, pipeline: &mut Pipeline) -> Result<(), TemplateError> {
        let start = tokens.rest;
        let mut names = Vec::new();
        while let Some(Token::Variable(name, fields)) = tokens.next()? {
            if !fields.is_empty() {
                break;
            }
            names.push(name);
            match tokens.next()? {
                Some(Token::Comma) if names.len() == 1 => continue,
                Some(Token::Declare) => {
                    pipeline.variables = names;
                    return Ok(());
                }
                Some(Token::Assign) => {
                    if let Some(name) = names.iter().find(|name| !self.variables.contains(name)) {
                        return Err(failure(tokens.line, format!("undefined variable \"{name}\"")));
                    }
                    pipeline.variables = names;
                    pipeline.assigns = true;
                    return Ok(());
                }
                _ => break,
            }
        }
        tokens.rest = start;
        Ok(())
    }
}

#[derive(Debug)]
enum Token {
    Pipe,
    Open,
    Close,
    Comma,
    Declare,
    Assign,
    Literal(Value),
    Word(String),
    Field(Vec<String>),
    Variable(String, Vec<String>),
}

struct Tokens<'a> {
    rest: &'a str,
    line: usize,
}

impl Tokens<'_> {
    fn next(&mut self) -> Result<Option<Token>, TemplateError> {
        self.rest = self.rest.trim_start();
        let Some(first) = self.rest.chars().next() else {
            return Ok(None);
        };
        let simple = [
            ("|", Token::Pipe),
            ("(", Token::Open),
            (")", Token::Close),
            (",", Token::Comma),
            (":=", Token::Declare),
            ("=", Token::Assign),
        ];
        for (text, token) in simple {
            if let Some(rest) = self.rest.strip_prefix(text) {
                self.rest = rest;
                return Ok(Some(token));
            }
        }
        Ok(Some(match first {
            '"' | '\'' | '`' => self.quoted(first)?,
            '.' if !self.rest[1..].starts_with(|next: char| next.is_ascii_digit()) => {
                let names = self.fields();
                if names.is_empty() {
                    self.rest = &self.rest[1..];
                }
                Token::Field(names)
            }
            '$' => {
                self.rest = &self.rest[1..];
                let name = format!("${}", self.word());
                Token::Variable(name, self.fields())
            }
            _ if first.is_ascii_digit() || matches!(first, '-' | '+' | '.') => self.number()?,
            _ if first.is_alphabetic() || first == '_' => Token::Word(self.word()),
            _ => {
                return Err(failure(
                    self.line,
                    format!("unexpected {:?} in command", first.to_string()),
                ));
            }
        }))
    }

    fn word(&mut self) -> String {
        let end = self
            .rest
            .find(|letter: char| !letter.is_alphanumeric() && letter != '_')
            .unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word.to_owned()
    }

    /// Reads `.A.B`, which may follow an operand without a blank.
    fn fields(&mut self) -> Vec<String> {
        let mut names = Vec::new();
        while let Some(after) = self.rest.strip_prefix('.') {
            if !after.starts_with(|letter: char| letter.is_alphabetic() || letter == '_') {
                break;
            }
            self.rest = after;
            names.push(self.word());
        }
        names
    }

    fn number(&mut self) -> Result<Token, TemplateError> {
        let end = self
            .rest
            .find(|letter: char| !letter.is_ascii_alphanumeric() && !matches!(letter, '.' | '_' | '-' | '+'))
            .unwrap_or(self.rest.len());
        let (text, rest) = self.rest.split_at(end);
        self.rest = rest;
        text.parse::<i64>()
            .map(Value::from)
            .or_else(|_| text.parse::<f64>().map(Value::from))
            .map(Token::Literal)
            .map_err(|_| failure(self.line, format!("bad number syntax: {text:?}")))
    }

    fn quoted(&mut self, quote: char) -> Result<Token, TemplateError> {
        let body = &self.rest[1..];
        let mut text = String::new();
        let mut letters = body.char_indices();
        while let Some((at, letter)) = letters.next() {
            if letter == quote {
                self.rest = &body[at + 1..];
                if quote == '\'' {
                    let mut characters = text.chars();
                    return match (characters.next(), characters.next()) {
                        (Some(character), None) => Ok(Token::Literal(u32::from(character).into())),
                        _ => Err(failure(self.line, format!("malformed character constant: '{text}'"))),
                    };
                }
                return Ok(Token::Literal(text.into()));
            }
            if letter != '\\' || quote == '`' {
                text.push(letter);
                continue;
            }
            match letters.next() {
                Some((_, 'n')) => text.push('\n'),
                Some((_, 't')) => text.push('\t'),
                Some((_, 'r')) => text.push('\r'),
                Some((_, other)) => text.push(other),
                None => break,
            }
        }
        Err(failure(self.line, "unterminated quoted string"))
    }
}
