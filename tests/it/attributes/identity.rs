//! Who the process is, and what it may do.

use super::{BASE, on_every_engine, on_ours};

#[test]
fn processes_have_the_user_the_groups_and_the_capabilities_of_the_file() {
    let file = "services:
  default: {<<: *base}
  added: {<<: *base, cap_add: [NET_ADMIN, cap_sys_time], cap_drop: [CHOWN]}
  none: {<<: *base, cap_drop: [ALL]}
  one: {<<: *base, cap_drop: [ALL], cap_add: [KILL]}
  privileged: {<<: *base, privileged: true}
  numbers: {<<: *base, user: '1000:1001', group_add: ['1234', daemon]}
  name: {<<: *base, user: daemon}
  calm: {<<: *base, security_opt: ['no-new-privileges:true']}
  unconfined: {<<: *base, security_opt: [seccomp=unconfined]}
  filtered: {<<: *base, security_opt: ['seccomp:./profile.json']}
  open: {<<: *base, security_opt: ['systempaths=unconfined']}
";
    let profile = r#"{"defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}]}"#;
    on_every_engine(file, &[("profile.json", profile)], |stage| {
        let capabilities = "grep -E 'Cap(Inh|Prm|Eff|Bnd|Amb)' /proc/1/status | tr -d '\\t' | sort";
        let sets = |effective: &str| {
            format!(
                "CapAmb:0000000000000000\nCapBnd:{effective}\nCapEff:{effective}\nCapInh:0000000000000000\nCapPrm:{effective}"
            )
        };
        stage.prints("default", capabilities, &sets("00000000a80425fb"));
        stage.prints("added", capabilities, &sets("00000000aa0435fa"));
        stage.prints("none", capabilities, &sets("0000000000000000"));
        stage.prints("one", capabilities, &sets("0000000000000020"));
        stage.prints("none", "chown 1 /tmp 2> /dev/null || echo refused", "refused");
        let bounding = std::fs::read_to_string("/proc/self/status").expect("procfs");
        let bounding = bounding
            .lines()
            .find_map(|line| line.strip_prefix("CapBnd:"))
            .expect("a set")
            .trim();
        stage.prints("privileged", capabilities, &sets(bounding));
        stage.prints(
            "privileged",
            "grep -E '^Seccomp:' /proc/1/status | tr -d '\\t'",
            "Seccomp:0",
        );
        stage.prints(
            "privileged",
            "cat /proc/sys/kernel/printk > /proc/sys/kernel/printk && test -c /dev/kmsg && echo whole",
            "whole",
        );

        let who = "grep -E '^(Uid|Gid|Groups):' /proc/1/status | tr '\\t' ' ' | sed 's/  */ /g'";
        stage.prints(
            "numbers",
            who,
            "Uid: 1000 1000 1000 1000\nGid: 1001 1001 1001 1001\nGroups: 1 1001 1234",
        );
        stage.prints("name", who, "Uid: 1 1 1 1\nGid: 1 1 1 1\nGroups: 1");
        stage.prints("name", "touch /etc/x 2> /dev/null || id -un", "daemon");

        let flags = "grep -E '^(NoNewPrivs|Seccomp):' /proc/1/status | tr -d '\\t'";
        stage.prints("default", flags, "NoNewPrivs:0\nSeccomp:2");
        stage.prints("calm", flags, "NoNewPrivs:1\nSeccomp:2");
        stage.prints("unconfined", flags, "NoNewPrivs:0\nSeccomp:0");
        stage.prints(
            "filtered",
            "mkdir /tmp/new 2>&1 | grep -o 'Function not implemented'",
            "Function not implemented",
        );
        let hidden = "head -c 1 /proc/timer_list | wc -c; echo 1 2>/dev/null > /proc/sys/kernel/printk && echo written || echo kept";
        stage.prints("default", hidden, "0\nkept");
        stage.prints("open", "head -c 1 /proc/timer_list | wc -c", "1");
        // Whatever the file says: the user ids inside are those outside.
        stage.prints("default", "tr -s ' ' < /proc/self/uid_map", " 0 0 4294967295");
    });
}

#[test]
fn a_user_or_capability_that_is_not_there_is_an_error() {
    on_ours("services:\n  web: {<<: *base, user: nobody-knows}\n", &[], |stage| {
        let error = stage.fails(&["up", "-d"]);
        assert!(
            error.contains("unable to find user nobody-knows: no matching entries in passwd file"),
            "{error}"
        );
        let file = |service: &str| {
            stage
                .project
                .write("compose.yaml", &format!("{BASE}services:\n  web: {service}\n"))
        };
        file("{<<: *base, cap_add: [FLYING]}");
        let error = stage.fails(&["up", "-d"]);
        assert!(
            error.contains("invalid CapAdd: unknown capability: \"CAP_FLYING\""),
            "{error}"
        );
        file("{<<: *base, group_add: [nobody-knows]}");
        let error = stage.fails(&["up", "-d"]);
        assert!(
            error.contains("unable to find group nobody-knows: no matching entries in group file"),
            "{error}"
        );
        file("{<<: *base, security_opt: ['flying=true']}");
        let error = stage.fails(&["up", "-d"]);
        assert!(error.contains("invalid --security-opt 2: \"flying=true\""), "{error}");
        file("{<<: *base, security_opt: ['seccomp=missing.json']}");
        let error = stage.fails(&["up", "-d"]);
        assert!(
            error.contains("opening seccomp profile (missing.json) failed"),
            "{error}"
        );
        file("{<<: *base, runtime: flying}");
        let error = stage.fails(&["up", "-d"]);
        assert!(error.contains("unknown or invalid runtime name: flying"), "{error}");
        file("{<<: *base, platform: linux/s390x}");
        let error = stage.fails(&["up", "-d"]);
        assert!(error.contains("linux/s390x"), "{error}");
    });
}
