//! Fills a template in.

use serde_json::Value;

use super::TemplateError;
use super::functions;
use super::parse::{Node, Operand, Pipeline};

/// Answers a field that is asked with arguments, or that the data does not list.
pub type Methods<'a> = &'a dyn Fn(&Value, &str, &[Value]) -> Option<Value>;

pub fn render(nodes: &[Node], data: &Value, methods: Methods<'_>) -> Result<String, TemplateError> {
    let mut state = State {
        output: String::new(),
        variables: vec![("$".to_owned(), data.clone())],
        methods,
    };
    state.nodes(nodes, data)?;
    Ok(state.output)
}

/// Whether to go on after a node.
enum Flow {
    Next,
    Break,
    Continue,
}

struct State<'a> {
    output: String,
    variables: Vec<(String, Value)>,
    methods: Methods<'a>,
}

impl State<'_> {
    fn nodes(&mut self, nodes: &[Node], dot: &Value) -> Result<Flow, TemplateError> {
        for node in nodes {
            let flow = match node {
                Node::Text(text) => {
                    self.output.push_str(text);
                    Flow::Next
                }
                Node::Action(pipeline) => {
                    let value = self.pipeline(pipeline, dot)?;
                    if pipeline.variables.is_empty() {
                        self.output.push_str(&functions::display(&value));
                    }
                    Flow::Next
                }
                Node::If(pipeline, body, otherwise) => self.scoped(|state| {
                    let value = state.pipeline(pipeline, dot)?;
                    state.nodes(if functions::is_true(&value) { body } else { otherwise }, dot)
                })?,
                Node::With(pipeline, body, otherwise) => self.scoped(|state| {
                    let value = state.pipeline(pipeline, dot)?;
                    if functions::is_true(&value) {
                        state.nodes(body, &value)
                    } else {
                        state.nodes(otherwise, dot)
                    }
                })?,
                Node::Range(pipeline, body, otherwise) => {
                    self.scoped(|state| state.range(pipeline, body, otherwise, dot))?
                }
                Node::Break => Flow::Break,
                Node::Continue => Flow::Continue,
            };
            if !matches!(flow, Flow::Next) {
                return Ok(flow);
            }
        }
        Ok(Flow::Next)
    }

    /// Forgets the variables that `run` declares.
    fn scoped(&mut self, run: impl FnOnce(&mut Self) -> Result<Flow, TemplateError>) -> Result<Flow, TemplateError> {
        let known = self.variables.len();
        let flow = run(self);
        self.variables.truncate(known);
        flow
    }

    fn range(
        &mut self,
        pipeline: &Pipeline,
        body: &[Node],
        otherwise: &[Node],
        dot: &Value,
    ) -> Result<Flow, TemplateError> {
        let value = self.value(pipeline, dot)?;
        let items: Vec<(Value, Value)> = match value {
            Value::Array(items) => items
                .into_iter()
                .enumerate()
                .map(|(at, item)| (at.into(), item))
                .collect(),
            // Go walks maps in the order of their keys.
            Value::Object(map) => {
                let mut items: Vec<_> = map.into_iter().collect();
                items.sort_by(|(left, _), (right, _)| left.cmp(right));
                items.into_iter().map(|(key, item)| (key.into(), item)).collect()
            }
            Value::Null => Vec::new(),
            Value::String(text) if text.is_empty() => Vec::new(),
            other => {
                let reason = format!("range can't iterate over {}", functions::display(&other));
                return Err(TemplateError::execute(pipeline.line, "range", reason));
            }
        };
        if items.is_empty() {
            return self.nodes(otherwise, dot);
        }
        for (key, item) in items {
            let known = self.variables.len();
            match pipeline.variables.as_slice() {
                [index, element] => {
                    self.variables.push((index.clone(), key));
                    self.variables.push((element.clone(), item.clone()));
                }
                [element] => self.variables.push((element.clone(), item.clone())),
                _ => {}
            }
            let flow = self.nodes(body, &item);
            self.variables.truncate(known);
            if let Flow::Break = flow? {
                break;
            }
        }
        Ok(Flow::Next)
    }

    /// Evaluates a pipeline and keeps its value in the variable it names.
    fn pipeline(&mut self, pipeline: &Pipeline, dot: &Value) -> Result<Value, TemplateError> {
        let value = self.value(pipeline, dot)?;
        if let [name] = pipeline.variables.as_slice() {
            let known = self.variables.iter_mut().rev().find(|(known, _)| known == name);
            match known {
                Some((_, old)) if pipeline.assigns => *old = value.clone(),
                _ => self.variables.push((name.clone(), value.clone())),
            }
        }
        Ok(value)
    }

    fn value(&mut self, pipeline: &Pipeline, dot: &Value) -> Result<Value, TemplateError> {
        let mut piped = None;
        for command in &pipeline.commands {
            piped = Some(self.command(command, piped, dot, pipeline.line)?);
        }
        Ok(piped.unwrap_or(Value::Null))
    }

    fn command(
        &mut self,
        operands: &[Operand],
        piped: Option<Value>,
        dot: &Value,
        line: usize,
    ) -> Result<Value, TemplateError> {
        let Some((first, rest)) = operands.split_first() else {
            return Ok(piped.unwrap_or(Value::Null));
        };
        let mut arguments = Vec::new();
        for operand in rest {
            arguments.push(self.operand(operand, dot, line)?);
        }
        arguments.extend(piped);
        let fail = |text: &str, reason: String| TemplateError::execute(line, text, reason);
        match first {
            Operand::Function(name) => functions::call(name, &arguments)
                .map_err(|reason| fail(name, format!("error calling {name}: {reason}"))),
            Operand::Field(names) if !arguments.is_empty() => {
                let Some((method, path)) = names.split_last() else {
                    return Err(fail(".", "can't give argument to non-function .".to_owned()));
                };
                let receiver = self.fields(dot.clone(), path, line)?;
                (self.methods)(&receiver, method, &arguments).ok_or_else(|| {
                    fail(
                        &format!(".{}", names.join(".")),
                        format!("{method} has arguments but cannot be invoked as function"),
                    )
                })
            }
            _ if arguments.is_empty() => self.operand(first, dot, line),
            _ => Err(fail("pipeline", "can't give argument to non-function".to_owned())),
        }
    }

    fn operand(&mut self, operand: &Operand, dot: &Value, line: usize) -> Result<Value, TemplateError> {
        match operand {
            Operand::Literal(value) => Ok(value.clone()),
            Operand::Function(name) => functions::call(name, &[])
                .map_err(|reason| TemplateError::execute(line, name, format!("error calling {name}: {reason}"))),
            Operand::Field(names) => self.fields(dot.clone(), names, line),
            Operand::Variable(name, names) => {
                let value = self
                    .variables
                    .iter()
                    .rev()
                    .find(|(known, _)| known == name)
                    .map(|(_, value)| value.clone())
                    .unwrap_or(Value::Null);
                self.fields(value, names, line)
            }
            Operand::Group(pipeline, names) => {
                let value = self.value(pipeline, dot)?;
                self.fields(value, names, line)
            }
        }
    }

    fn fields(&self, mut value: Value, names: &[String], line: usize) -> Result<Value, TemplateError> {
        for name in names {
            let found = match &mut value {
                Value::Object(map) => map.get_mut(name).map(Value::take),
                _ => None,
            };
            value = match found.or_else(|| (self.methods)(&value, name, &[])) {
                Some(found) => found,
                None => {
                    let text = format!(".{}", names.join("."));
                    return Err(TemplateError::execute(
                        line,
                        text,
                        format!("can't evaluate field {name}"),
                    ));
                }
            };
        }
        Ok(value)
    }
}
