//! The rules, and which of them a Dockerfile wants.

/// A rule: its name, and what it is for in the address of its page.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Rule {
    pub name: &'static str,
    pub page: &'static str,
    /// It counts only where it is asked for.
    pub is_experimental: bool,
}

const fn rule(name: &'static str, page: &'static str) -> Rule {
    Rule {
        name,
        page,
        is_experimental: false,
    }
}

const fn experimental(name: &'static str, page: &'static str) -> Rule {
    Rule {
        is_experimental: true,
        ..rule(name, page)
    }
}

// As in buildkit's frontend/dockerfile/linter/ruleset.go.
pub(super) static STAGE_NAME_CASING: Rule = rule("StageNameCasing", "stage-name-casing");
pub(super) static FROM_AS_CASING: Rule = rule("FromAsCasing", "from-as-casing");
pub(super) static NO_EMPTY_CONTINUATION: Rule = rule("NoEmptyContinuation", "no-empty-continuation");
pub(super) static CONSISTENT_CASING: Rule = rule("ConsistentInstructionCasing", "consistent-instruction-casing");
pub(super) static DUPLICATE_STAGE: Rule = rule("DuplicateStageName", "duplicate-stage-name");
pub(super) static RESERVED_STAGE: Rule = rule("ReservedStageName", "reserved-stage-name");
pub(super) static JSON_ARGUMENTS: Rule = rule("JSONArgsRecommended", "json-args-recommended");
pub(super) static MAINTAINER: Rule = rule("MaintainerDeprecated", "maintainer-deprecated");
pub(super) static UNDEFINED_IN_FROM: Rule = rule("UndefinedArgInFrom", "undefined-arg-in-from");
pub(super) static INVALID_DEFAULT: Rule = rule("InvalidDefaultArgInFrom", "invalid-default-arg-in-from");
pub(super) static RELATIVE_WORKDIR: Rule = rule("WorkdirRelativePath", "workdir-relative-path");
pub(super) static UNDEFINED: Rule = rule("UndefinedVar", "undefined-var");
pub(super) static MULTIPLE: Rule = rule("MultipleInstructionsDisallowed", "multiple-instructions-disallowed");
pub(super) static LEGACY_PAIRS: Rule = rule("LegacyKeyValueFormat", "legacy-key-value-format");
pub(super) static REDUNDANT_PLATFORM: Rule = rule("RedundantTargetPlatform", "redundant-target-platform");
pub(super) static CONSTANT_PLATFORM: Rule =
    rule("FromPlatformFlagConstDisallowed", "from-platform-flag-const-disallowed");
pub(super) static SECRETS: Rule = rule("SecretsUsedInArgOrEnv", "secrets-used-in-arg-or-env");
pub(super) static EXPOSE_CASING: Rule = rule("ExposeProtoCasing", "expose-proto-casing");
pub(super) static EXPOSE_FORMAT: Rule = rule("ExposeInvalidFormat", "expose-invalid-format");
pub(super) static IGNORED_FILE: Rule = experimental("CopyIgnoredFile", "copy-ignored-file");
pub(super) static DESCRIPTION: Rule = experimental("InvalidDefinitionDescription", "invalid-definition-description");

/// What `# check=` says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Options {
    skipped: Names,
    experimental: Names,
    /// Whether what is found ends a build.
    pub is_error: bool,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum Names {
    #[default]
    None,
    All,
    Some(Vec<String>),
}

impl Names {
    fn parse(text: &str) -> Self {
        match text.trim() {
            "all" => Self::All,
            list => Self::Some(list.split(',').map(|name| name.trim().to_owned()).collect()),
        }
    }

    fn include(&self, rule: &Rule) -> bool {
        match self {
            Self::None => false,
            Self::All => true,
            Self::Some(names) => names.iter().any(|name| name == rule.name),
        }
    }
}

impl Options {
    /// Reads `skip=A,B;error=true;experimental=all`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut options = Self::default();
        for part in text.split(';').map(str::trim).filter(|part| !part.is_empty()) {
            let Some((name, value)) = part.split_once('=') else {
                return Err(format!("invalid check option {part:?}"));
            };
            match name.trim() {
                "skip" => options.skipped = Names::parse(value),
                "experimental" => options.experimental = Names::parse(value),
                "error" => {
                    options.is_error = match value.trim() {
                        "1" | "t" | "T" | "true" | "TRUE" | "True" => true,
                        "0" | "f" | "F" | "false" | "FALSE" | "False" => false,
                        other => {
                            return Err(format!(
                                "failed to parse check option {part:?}: strconv.ParseBool: parsing {other:?}: invalid syntax"
                            ));
                        }
                    }
                }
                other => return Err(format!("invalid check option {other:?}")),
            }
        }
        Ok(options)
    }

    /// Returns whether a rule counts.
    pub fn applies(&self, rule: &Rule) -> bool {
        (!rule.is_experimental || self.experimental.include(rule)) && !self.skipped.include(rule)
    }
}
