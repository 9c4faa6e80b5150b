//! What BuildKit says of the same Dockerfiles is what is expected here.

use super::*;

/// Returns what is found, one a line: the line, the rule, what it says.
fn found(text: &str, target: Option<&str>) -> Vec<String> {
    let ignore = Ignore::parse("secret.txt\nign\n").unwrap();
    let base = Base {
        environment: vec!["PATH=/bin".to_owned()],
        has_shell: false,
    };
    let report = check(&Question {
        text,
        target,
        arguments: &BTreeMap::new(),
        ignore: &ignore,
        platform: "linux/amd64",
        bases: &BTreeMap::from([("busybox".to_owned(), base)]),
    });
    let text = report.text("f");
    let mut lines = text.lines().peekable();
    let mut found = Vec::new();
    while let Some(line) = lines.next() {
        if let Some(rest) = line.strip_prefix("WARNING: ") {
            let (rule, _) = rest.split_once(" - ").unwrap();
            let (detail, place) = (lines.next().unwrap(), lines.next().unwrap());
            found.push(format!("{} {rule}: {detail}", place.trim_start_matches("f:")));
        } else if line.starts_with("ERROR: ") {
            found.push(line.to_owned());
        }
    }
    found
}

#[test]
fn every_rule_finds_what_buildkit_finds() {
    for (text, expected) in [
        (
            "from busybox\nrun echo\nRUN echo\n",
            &["3 ConsistentInstructionCasing: Command 'RUN' should match the case of the command majority (lowercase)"]
                [..],
        ),
        (
            "From busybox\nRun echo\n",
            &[
                "1 ConsistentInstructionCasing: Command 'From' should match the case of the command majority (uppercase)",
                "2 ConsistentInstructionCasing: Command 'Run' should match the case of the command majority (uppercase)",
            ][..],
        ),
        (
            "FROM busybox as a\nfrom busybox AS b\nFROM busybox As C\nfrom busybox as d\n",
            &[
                "1 FromAsCasing: 'as' and 'FROM' keywords' casing do not match",
                "2 FromAsCasing: 'AS' and 'from' keywords' casing do not match",
                "2 ConsistentInstructionCasing: Command 'from' should match the case of the command majority (uppercase)",
                "3 StageNameCasing: Stage name 'C' should be lowercase",
                "3 FromAsCasing: 'As' and 'FROM' keywords' casing do not match",
                "4 ConsistentInstructionCasing: Command 'from' should match the case of the command majority (uppercase)",
            ][..],
        ),
        (
            "FROM busybox AS b\nFROM busybox AS B\nFROM busybox AS b\nFROM busybox AS scratch\nFROM busybox AS context\n",
            &[
                "2 StageNameCasing: Stage name 'B' should be lowercase",
                "2 DuplicateStageName: Duplicate stage name \"b\", stage names should be unique",
                "3 DuplicateStageName: Duplicate stage name \"b\", stage names should be unique",
                "4 ReservedStageName: Stage name should not use the same name as reserved stage \"scratch\"",
                "5 ReservedStageName: Stage name should not use the same name as reserved stage \"context\"",
            ][..],
        ),
        (
            "FROM busybox\nRUN echo \\\n\n  hi \\\n\n  # c\n  there\nCOPY . \\\n\n  /\n",
            &[
                "7 NoEmptyContinuation: Empty continuation line",
                "10 NoEmptyContinuation: Empty continuation line",
            ][..],
        ),
        (
            "FROM busybox\nCMD echo\nENTRYPOINT echo x\nHEALTHCHECK CMD echo\nSHELL [\"/bin/sh\",\"-c\"]\nCMD echo\n",
            &[
                "2 JSONArgsRecommended: JSON arguments recommended for CMD to prevent unintended behavior related to OS signals",
                "2 MultipleInstructionsDisallowed: Multiple CMD instructions should not be used in the same stage because only the last one will be used",
                "3 JSONArgsRecommended: JSON arguments recommended for ENTRYPOINT to prevent unintended behavior related to OS signals",
            ][..],
        ),
        (
            "FROM busybox AS a\nSHELL [\"sh\",\"-c\"]\nCMD echo\nFROM a\nENTRYPOINT foo\nCMD exec foo\n",
            &[][..],
        ),
        (
            "FROM busybox\nCMD [\"a\"]\nCMD [\"b\"]\nENTRYPOINT [\"a\"]\nENTRYPOINT [\"b\"]\nENTRYPOINT [\"c\"]\nHEALTHCHECK NONE\nHEALTHCHECK CMD [\"x\"]\nFROM busybox\nCMD [\"z\"]\n",
            &[
                "2 MultipleInstructionsDisallowed: Multiple CMD instructions should not be used in the same stage because only the last one will be used",
                "4 MultipleInstructionsDisallowed: Multiple ENTRYPOINT instructions should not be used in the same stage because only the last one will be used",
                "5 MultipleInstructionsDisallowed: Multiple ENTRYPOINT instructions should not be used in the same stage because only the last one will be used",
                "7 MultipleInstructionsDisallowed: Multiple HEALTHCHECK instructions should not be used in the same stage because only the last one will be used",
            ][..],
        ),
        (
            "FROM busybox\nENV a b\\\n c\nENV foo $bar\n",
            &[
                "2 LegacyKeyValueFormat: \"ENV key=value\" should be used instead of legacy \"ENV key value\" format",
                "4 UndefinedVar: Usage of undefined variable '$bar' (did you mean $a?)",
                "4 LegacyKeyValueFormat: \"ENV key=value\" should be used instead of legacy \"ENV key value\" format",
            ][..],
        ),
        (
            "ARG GLOBAL_TOKEN\nFROM busybox\nARG GLOBAL_TOKEN\nLABEL token=1\nENV a-token=1\n",
            &["3 SecretsUsedInArgOrEnv: Do not use ARG or ENV instructions for sensitive data (ARG \"GLOBAL_TOKEN\")"]
                [..],
        ),
        (
            "FROM --platform=linux/amd64 busybox\nFROM --platform=linux/amd64 busybox AS amd64\nFROM --platform=linux/amd64 busybox AS build-amd64\nFROM --platform=linux/amd64 busybox AS a\nFROM --platform=$BUILDPLATFORM busybox AS b\nFROM --platform=linux/arm64 scratch AS lin\nFROM --platform=linux scratch AS linux\nFROM --platform=linux/arm64 scratch AS arm64\n",
            &[
                "1 FromPlatformFlagConstDisallowed: FROM --platform flag should not use constant value \"linux/amd64\"",
                "4 FromPlatformFlagConstDisallowed: FROM --platform flag should not use constant value \"linux/amd64\"",
                "6 FromPlatformFlagConstDisallowed: FROM --platform flag should not use constant value \"linux/arm64\"",
            ][..],
        ),
        (
            "FROM busybox\nEXPOSE 80/TCP 81/Udp\nEXPOSE 80:80\nEXPOSE 127.0.0.1:80:80\nEXPOSE 90-91 0.0.0.0:80\n",
            &[
                "2 ExposeProtoCasing: Defined protocol '80/TCP' in EXPOSE instruction should be lowercase",
                "2 ExposeProtoCasing: Defined protocol '81/Udp' in EXPOSE instruction should be lowercase",
                "3 ExposeInvalidFormat: EXPOSE instruction should not define an IP address or host-port mapping, found '80:80'",
                "4 ExposeInvalidFormat: EXPOSE instruction should not define an IP address or host-port mapping, found '127.0.0.1:80:80'",
                "5 ExposeInvalidFormat: EXPOSE instruction should not define an IP address or host-port mapping, found '0.0.0.0:80'",
            ][..],
        ),
        (
            "FROM busybox\nARG VERSION\nARG VERSIOM=$VERSON\nENV PATHS=1\nCOPY $PATG /x\nCOPY $PTAH /x\nCOPY $VERSSION /y\nCOPY $http_proxy $HTTP_PROXY $TARGETPLATFORM $BUILDKIT_X $SOURCE_DATE_EPOCH /x/\nARG TARGETARCH\nCOPY $TARGETARCH $TARGETOS /x/\n",
            &[
                "3 UndefinedVar: Usage of undefined variable '$VERSON'",
                "5 UndefinedVar: Usage of undefined variable '$PATG' (did you mean $PATH?)",
                "6 UndefinedVar: Usage of undefined variable '$PTAH' (did you mean $PATH?)",
                "7 UndefinedVar: Usage of undefined variable '$VERSSION' (did you mean $VERSIOM?)",
                "8 UndefinedVar: Usage of undefined variable '$http_proxy'",
                "8 UndefinedVar: Usage of undefined variable '$HTTP_PROXY'",
                "8 UndefinedVar: Usage of undefined variable '$TARGETPLATFORM'",
                "8 UndefinedVar: Usage of undefined variable '$BUILDKIT_X'",
                "8 UndefinedVar: Usage of undefined variable '$SOURCE_DATE_EPOCH'",
                "10 UndefinedVar: Usage of undefined variable '$TARGETOS'",
            ][..],
        ),
        (
            "ARG G=1\nFROM busybox AS a\nENV FROMA=1\nFROM a\nCOPY $FROMA $G /x/\nARG G\nCOPY $G /x/\nCOPY \"$Q\" '$R' \\$S /x/\nCOPY <<EOF /x\n$heredoc\nEOF\nCOPY <<\"EOF\" /x\n$heredoc2\nEOF\n",
            &[
                "5 UndefinedVar: Usage of undefined variable '$G'",
                "8 UndefinedVar: Usage of undefined variable '$Q' (did you mean $G?)",
                "9 UndefinedVar: Usage of undefined variable '$heredoc'",
            ][..],
        ),
        (
            "FROM busybox\nARG A\nRUN echo $A\nENV B=$A\nENV C=${C:-x} C2=$C2\nENV PATH=$PATH:/x\nENV LD_LIBRARY_PATH=/x:$LD_LIBRARY_PATH\nLABEL a=$b$c\n",
            &[
                "5 UndefinedVar: Usage of undefined variable '$C' (did you mean $B?)",
                "5 UndefinedVar: Usage of undefined variable '$C2' (did you mean $B?)",
                "7 UndefinedVar: Usage of undefined variable '$LD_LIBRARY_PATH'",
                "8 UndefinedVar: Usage of undefined variable '$b' (did you mean $B?)",
                "8 UndefinedVar: Usage of undefined variable '$c' (did you mean $B?)",
            ][..],
        ),
        (
            "FROM busybox AS un\nWORKDIR q\nCOPY $zz /\nCMD x\nFROM busybox AS un2\nENV a=$b\nCMD y\nFROM scratch\n",
            &[
                "2 WorkdirRelativePath: Relative workdir \"q\" can have unexpected results if the base image changes",
                "3 UndefinedVar: Usage of undefined variable '$zz'",
                "4 JSONArgsRecommended: JSON arguments recommended for CMD to prevent unintended behavior related to OS signals",
                "6 UndefinedVar: Usage of undefined variable '$b'",
                "7 JSONArgsRecommended: JSON arguments recommended for CMD to prevent unintended behavior related to OS signals",
            ][..],
        ),
        (
            "FROM busybox\nWORKDIR a/b\nWORKDIR /abs\nWORKDIR c\nFROM busybox\nENV W=/x\nWORKDIR $W\nWORKDIR y\nFROM busybox\nCOPY . .\n",
            &["2 WorkdirRelativePath: Relative workdir \"a/b\" can have unexpected results if the base image changes"]
                [..],
        ),
        (
            "FROM busybox AS a\nWORKDIR ./q\nFROM a\nWORKDIR z\n",
            &["2 WorkdirRelativePath: Relative workdir \"./q\" can have unexpected results if the base image changes"]
                [..],
        ),
        (
            "# not foo\nARG foo=1\n# foo is right\nARG foo2=1\n# base is x\nFROM busybox AS base\n# wrong comment\nFROM busybox AS two\n# other\nFROM busybox AS three\n",
            &[][..],
        ),
        (
            "# check=experimental=all\n# bar this is\nARG foo=1\n# x text\nFROM busybox AS base\n\n# stray\n\nFROM busybox AS b2\n# b3 ok\nFROM busybox AS b3\n",
            &[
                "3 InvalidDefinitionDescription: Comment for ARG should follow the format: `# foo <description>`",
                "5 InvalidDefinitionDescription: Comment for FROM should follow the format: `# base <description>`",
                "9 InvalidDefinitionDescription: Comment for FROM should follow the format: `# b2 <description>`",
            ][..],
        ),
        (
            "# check=experimental=CopyIgnoredFile\nFROM busybox\nCOPY secret.txt /x\nADD ign/a /x\nCOPY ok.txt secret.txt /x/\nCOPY *.txt /x/\nCOPY ign /y\nCOPY ./secret.txt /z\n",
            &[
                "3 CopyIgnoredFile: Attempting to Copy file \"secret.txt\" that is excluded by .dockerignore",
                "4 CopyIgnoredFile: Attempting to Add file \"ign/a\" that is excluded by .dockerignore",
                "5 CopyIgnoredFile: Attempting to Copy file \"secret.txt\" that is excluded by .dockerignore",
                "7 CopyIgnoredFile: Attempting to Copy file \"ign\" that is excluded by .dockerignore",
            ][..],
        ),
        (
            "# check=skip=JSONArgsRecommended,MaintainerDeprecated\nFROM busybox\nMAINTAINER x\nCMD x\nENV a b\n",
            &["5 LegacyKeyValueFormat: \"ENV key=value\" should be used instead of legacy \"ENV key value\" format"][..],
        ),
        ("# check=skip=all\nFROM busybox\nMAINTAINER x\nCMD x\n", &[][..]),
        (
            "ARG VARIANT\nFROM busybox:$VARIENT\n",
            &[
                "2 InvalidDefaultArgInFrom: Default value for ARG busybox:$VARIENT results in empty or invalid base image name",
                "2 UndefinedArgInFrom: FROM argument 'VARIENT' is not declared (did you mean VARIANT?)",
                "ERROR: failed to parse stage name \"busybox:\": invalid reference format",
            ][..],
        ),
        (
            "ARG VER\nFROM busybox:${VER}\nRUN x\n",
            &[
                "2 InvalidDefaultArgInFrom: Default value for ARG busybox:${VER} results in empty or invalid base image name",
                "ERROR: failed to parse stage name \"busybox:\": invalid reference format",
            ][..],
        ),
        (
            "FROM --platform=$TARGETPLATFORM busybox\nFROM --platform=${TARGETPLATFORM} busybox AS b\nFROM --platform=linux/$TARGETARCH busybox\nFROM busybox${UND:-}\nFROM busybox${UNB-}:latest\n",
            &[
                "1 RedundantTargetPlatform: Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior",
                "2 RedundantTargetPlatform: Setting platform to predefined ${TARGETPLATFORM} in FROM is redundant as this is the default behavior",
                "4 UndefinedArgInFrom: FROM argument 'UND' is not declared",
                "5 UndefinedArgInFrom: FROM argument 'UNB' is not declared",
            ][..],
        ),
        (
            "from busybox AS a\nFROM busybox AS A\nFrom busybox as Scratch\nFROM busybox AS scratch\n",
            &[
                "1 FromAsCasing: 'AS' and 'from' keywords' casing do not match",
                "1 ConsistentInstructionCasing: Command 'from' should match the case of the command majority (uppercase)",
                "2 StageNameCasing: Stage name 'A' should be lowercase",
                "2 DuplicateStageName: Duplicate stage name \"a\", stage names should be unique",
                "3 StageNameCasing: Stage name 'Scratch' should be lowercase",
                "3 ReservedStageName: Stage name should not use the same name as reserved stage \"scratch\"",
                "3 ConsistentInstructionCasing: Command 'From' should match the case of the command majority (uppercase)",
                "4 ReservedStageName: Stage name should not use the same name as reserved stage \"scratch\"",
                "4 DuplicateStageName: Duplicate stage name \"scratch\", stage names should be unique",
            ][..],
        ),
        (
            "FROM busybox\nONBUILD CMD x\nonbuild RUN x\nONBUILD ENV a b\nONBUILD ARG TOKEN\nONBUILD WORKDIR x\nONBUILD EXPOSE 80/TCP\n",
            &[
                "3 ConsistentInstructionCasing: Command 'onbuild' should match the case of the command majority (uppercase)",
            ][..],
        ),
        (
            "FROM scratch AS a\nCOPY $PATH $X /\nFROM a AS b\nENV Y=$X\nFROM b\nCOPY $Y $Z /\n",
            &[
                "2 UndefinedVar: Usage of undefined variable '$X'",
                "4 UndefinedVar: Usage of undefined variable '$X'",
                "6 UndefinedVar: Usage of undefined variable '$Z' (did you mean $Y?)",
            ][..],
        ),
        (
            "ARG TOKEN=x\nARG BASE=busybox\nFROM ${BASE} AS s\nARG BASE\nCOPY $BASE $TOKEN /\nARG TOKEN\nCOPY $TOKEN /\n",
            &[
                "5 UndefinedVar: Usage of undefined variable '$TOKEN'",
                "6 SecretsUsedInArgOrEnv: Do not use ARG or ENV instructions for sensitive data (ARG \"TOKEN\")",
            ][..],
        ),
        (
            "# check=skip=none;experimental=InvalidDefinitionDescription\n# hello\nARG a b\n# x y\nFROM busybox\n# foo\nARG c=1\n# c ok\nARG c\n# d\nRUN x\n# e f\nARG e f\n# f g\nARG e=1 f\n",
            &[
                "3 InvalidDefinitionDescription: Comment for ARG should follow the format: `# <arg_key> <description>`",
                "7 InvalidDefinitionDescription: Comment for ARG should follow the format: `# c <description>`",
            ][..],
        ),
        (
            "FROM busybox\nRUN x \\\n\n\nENV a=1 \\\n\n b=2\nCOPY <<EOF /x\na \\\n\nb\nEOF\n",
            &["7 NoEmptyContinuation: Empty continuation line"][..],
        ),
        (
            "FROM busybox\nARG http_proxy\nCOPY $http_proxy $BUILDKIT_SBOM_SCAN_CONTEXT /x/\nARG BUILDKIT_SBOM_SCAN_STAGE\nCOPY $TARGETSTAGE /\nARG TARGETSTAGE\nCOPY $TARGETSTAGE $BUILDPLATFORM /x/\nARG BUILDPLATFORM TARGETVARIANT\nCOPY $TARGETVARIANT $BUILDPLATFORM /x/\n",
            &[
                "5 UndefinedVar: Usage of undefined variable '$TARGETSTAGE'",
                "7 UndefinedVar: Usage of undefined variable '$BUILDPLATFORM'",
            ][..],
        ),
        (
            "FROM busybox\n\tCMD x\n  \tMAINTAINER y\n",
            &[
                "2 JSONArgsRecommended: JSON arguments recommended for CMD to prevent unintended behavior related to OS signals",
                "3 MaintainerDeprecated: Maintainer instruction is deprecated in favor of using label",
            ][..],
        ),
        (
            "FROM busybox\r\nCMD x\r\nMAINTAINER x\r\n",
            &[
                "2 JSONArgsRecommended: JSON arguments recommended for CMD to prevent unintended behavior related to OS signals",
                "3 MaintainerDeprecated: Maintainer instruction is deprecated in favor of using label",
            ][..],
        ),
        (
            "FROM busybox\nMAINTAINER x\nmaintainer y\n",
            &[
                "2 MaintainerDeprecated: Maintainer instruction is deprecated in favor of using label",
                "3 MaintainerDeprecated: Maintainer instruction is deprecated in favor of using label",
                "3 ConsistentInstructionCasing: Command 'maintainer' should match the case of the command majority (uppercase)",
            ][..],
        ),
    ] {
        assert_eq!(found(text, None), expected, "{text}");
    }
}

#[test]
fn only_what_the_target_is_made_of_is_looked_into() {
    let text = "FROM busybox AS a\nCMD x\nFROM busybox AS B\nENTRYPOINT y\nFROM busybox\nCOPY --from=a x /\n";
    let of = |target| {
        found(text, target)
            .iter()
            .map(|line| line[..1].to_owned())
            .collect::<String>()
    };
    assert_eq!(of(None), "234");
    assert_eq!(of(Some("a")), "23");
    assert_eq!(of(Some("b")), "34");
    assert_eq!(of(Some("2")), "23");
    let unknown = found(text, Some("nope"));
    assert_eq!(
        unknown.last().unwrap(),
        "ERROR: target stage \"nope\" could not be found"
    );
}

/// Checks a Dockerfile with nothing beside it.
fn alone(text: &str) -> Report {
    check(&Question {
        text,
        target: None,
        arguments: &BTreeMap::new(),
        ignore: &Ignore::default(),
        platform: "linux/amd64",
        bases: &BTreeMap::new(),
    })
}

#[test]
fn what_cannot_be_built_is_said_with_its_place() {
    let report = alone("ARG A\nFROM busybox\nFROM $B AS z\n");
    let text = report.text("Dockerfile");
    assert!(text.ends_with(
        "ERROR: base name ($B) should not be blank\nDockerfile:3\n--------------------\n   1 |     ARG A\n   2 |     FROM busybox\n   3 | >>> FROM $B AS z\n   4 |     \n--------------------\n"
    ), "{text}");
    assert!(!report.is_clean());
    let report = alone("FROM busybox\nFOO x\n");
    assert!(
        report
            .text("D")
            .starts_with("ERROR: dockerfile parse error on line 2: unknown instruction: FOO")
    );
    let report = alone("# check=nope=1\nFROM busybox\n");
    assert_eq!(
        report.text("D"),
        "ERROR: failed to parse check options: invalid check option \"nope\"\n"
    );
    let report = Report::of_base("FROM a AS b\nFROM x:1\n", "x:1", "no");
    assert!(report.text("D").contains("ERROR: x:1: no\nD:2\n"));
}

#[test]
fn a_report_reads_as_buildkits() {
    let text = "# check=error=true\nFROM busybox\nCOPY . \\\n  /\nCMD echo a \\\n  b\nMAINTAINER x\n";
    let report = alone(text);
    assert_eq!(
        report.text("Dockerfile"),
        "Check complete, 2 warnings have been found!\n\n\
         WARNING: JSONArgsRecommended - https://docs.docker.com/go/dockerfile/rule/json-args-recommended/\n\
         JSON arguments recommended for CMD to prevent unintended behavior related to OS signals\n\
         Dockerfile:5\n--------------------\n   4 |       /\n   5 | >>> CMD echo a \\\n   6 | >>>   b\n   7 |     MAINTAINER x\n--------------------\n\n\
         WARNING: MaintainerDeprecated - https://docs.docker.com/go/dockerfile/rule/maintainer-deprecated/\n\
         Maintainer instruction is deprecated in favor of using label\n\
         Dockerfile:7\n--------------------\n   5 |     CMD echo a \\\n   6 |       b\n   7 | >>> MAINTAINER x\n   8 |     \n--------------------\n"
    );
    assert_eq!(
        report.refusal().as_deref(),
        Some("lint violation found for rules: JSONArgsRecommended, MaintainerDeprecated")
    );
}

#[test]
fn the_images_that_stages_begin_with_are_known_before() {
    let text = "ARG V=1\nARG I\nFROM busybox:$V AS a\nFROM a\nFROM scratch\nFROM ${I:-debian}\nFROM busybox:1\n";
    let given = BTreeMap::from([("V".to_owned(), "2".to_owned())]);
    assert_eq!(bases(text, &given, "linux/amd64"), ["busybox:2", "debian", "busybox:1"]);
}

proptest::proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "(FROM |RUN |COPY |ENV |ARG |CMD |WORKDIR |EXPOSE |<<E|E\n|\\\\\n|#|\n|\"|\\[|a|=| |\\$a|\\$\\{b:-|\\}|é){0,20}") {
        let _ = found(&format!("FROM a\n{text}"), None);
        let _ = found(&text, Some("a"));
    }
}
