//! What a process is told: its words, its environment, its names.

use super::on_every_engine;

#[test]
fn commands_environment_and_names_reach_the_process() {
    let file = "services:
  words: {image: '${IMAGE}', entrypoint: [sleep], command: ['600'], working_dir: /usr, init: false, stop_grace_period: 0s}
  line: {image: '${IMAGE}', init: true, command: \"sh -c 'sleep 600; :' 'a b'\", tty: true, stop_grace_period: 0s}
  silent: {<<: *base, stdin_open: false}
  speaking: {<<: *base, stdin_open: true}
  environment:
    <<: *base
    env_file: [{path: one.env}, {path: missing.env, required: false}, {path: raw.env, format: raw}]
    environment: {A: mine, EMPTY: '', PASSED: }
    labels: {shown: 'yes'}
    label_file: [labels]
    annotations: {noted: 'yes'}
  names:
    <<: *base
    hostname: own-name
    domainname: example.org
    extra_hosts: ['fixed.example=192.0.2.7', 'gateway:host-gateway', 'six=[2001:db8::5]']
    dns: [192.0.2.53, '2001:db8::53']
    dns_search: [one.example, two.example]
    dns_opt: ['ndots:3', rotate]
  stopped: {image: '${IMAGE}', init: false, command: [sh, -c, 'trap \"echo got it; exit 7\" USR1; while :; do sleep 0.05; done'], stop_signal: SIGUSR1, stop_grace_period: 20s}
";
    let files = [
        ("one.env", "A=theirs\nB=$$A ${A}\n# no\nQUOTED=\"two words\"\n"),
        ("raw.env", "RAW='as it is' # all of it\n"),
        ("labels", "from=file\n"),
    ];
    on_every_engine(file, &files, |stage| {
        stage.prints(
            "words",
            "tr '\\0' ' ' < /proc/1/cmdline; echo; readlink /proc/1/cwd",
            "sleep 600\n/usr",
        );
        stage.prints("line", "tr '\\0' '|' < /proc/1/cmdline | sed 's/.*|--|//'; echo; test -t 0 || echo none; readlink /proc/1/fd/0 | cut -c1-8", "sh|-c|sleep 600; :|a b|\nnone\n/dev/pts");
        stage.prints("silent", "readlink /proc/1/fd/0", "/dev/null");
        stage.prints("speaking", "readlink /proc/1/fd/0 | cut -d: -f1", "pipe");
        stage.prints(
            "environment",
            "tr '\\0' '\\n' < /proc/1/environ | grep -E '^(A|B|QUOTED|RAW|EMPTY|PASSED)=' | sort",
            "A=mine\nB=$A mine\nEMPTY=\nQUOTED=two words\nRAW='as it is' # all of it",
        );
        stage.prints("names", "hostname; cat /proc/sys/kernel/domainname; grep -E 'fixed|six|own-name' /etc/hosts | tr -s ' \\t' ' ' | cut -d' ' -f2-; grep -E '^(nameserver|search|options)' /etc/resolv.conf", "own-name\nexample.org\nfixed.example\nsix\nown-name.example.org own-name\nnameserver 127.0.0.11\nsearch one.example two.example\noptions ndots:3 rotate");
        // Not always the gateway of its own network, but always the host.
        stage.prints(
            "names",
            "busybox ping -c 1 -W 5 gateway > /dev/null && echo reached",
            "reached",
        );
        // A signal of the file's choice ends it, and the exit code is its own.
        stage.succeeds(&["stop", "stopped"]);
        let shown = stage.succeeds(&[
            "ps",
            "-a",
            "--format",
            "{{.Service}} {{.State}} {{.ExitCode}}",
            "stopped",
        ]);
        assert_eq!(shown.trim(), "stopped exited 7");
        assert!(
            stage
                .succeeds(&["logs", "--no-log-prefix", "stopped"])
                .contains("got it")
        );
    });
}

#[test]
fn an_entrypoint_of_the_file_takes_the_image_s_command_away() {
    super::on_ours(
        "services:\n  web: {image: '${IMAGE}', entrypoint: [echo, said]}\n",
        &[],
        |stage| {
            stage.succeeds(&["up"]);
            assert_eq!(stage.succeeds(&["logs", "--no-log-prefix"]).trim(), "said");
        },
    );
}
