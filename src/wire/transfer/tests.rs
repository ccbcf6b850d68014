//! What is recognised, and each way around it.

use super::*;

fn kind(command: &str) -> Option<(&'static str, bool, bool)> {
    let transfer = recognise(command.as_bytes())?;
    let kind = match transfer.kind {
        Kind::SftpServer => "sftp",
        Kind::Scp(_) => "scp",
        Kind::Rsync(_) => "rsync",
    };
    Some((kind, transfer.writes, transfer.plain))
}

#[test]
fn what_stock_clients_send() {
    for (command, expected) in [
        ("scp -t /srv", ("scp", true, true)),
        ("scp -f /srv/a", ("scp", false, true)),
        ("scp -v -r -p -d -t .", ("scp", true, true)),
        ("scp -rpt '/srv/a b'", ("scp", true, true)),
        ("scp -q -f ~/x", ("scp", false, true)),
        ("scp -f /srv/*.log", ("scp", false, true)),
        ("scp -f -- *", ("scp", false, true)),
        ("scp -f -- -t", ("scp", false, true)),
        ("scp -f a b", ("scp", false, true)),
        ("/usr/bin/scp -t x", ("scp", true, true)),
        ("sudo scp -t x", ("scp", true, false)),
        ("sudo -n -u deploy -- /usr/bin/scp -f x", ("scp", false, false)),
        ("env LC_ALL=C nice -n 10 ionice -c3 scp -f x", ("scp", false, false)),
        ("scp -t Gr\u{f6}\u{df}e", ("scp", true, true)),
        ("rsync --server -logDtpre.iLsfxCIvu . /srv/", ("rsync", true, true)),
        ("rsync --server --sender -vlogDtprze.iLsfxCIvu . /srv/*", ("rsync", false, true)),
        ("rsync --server --sender -logDtpr . a\\ b", ("rsync", false, true)),
        ("rsync --server --sender -logDtpre.iLsfxCIvu --remove-source-files . /srv", ("rsync", true, true)),
        ("rsync --server --sender -r --remove-sent-files . /srv", ("rsync", true, true)),
        ("rsync --server -vvnde.LsfxCIvu --delete-during --no-r . .", ("rsync", true, true)),
        (
            "rsync --server -re.iLsfxCIvu -B700 --timeout=9 --bwlimit=10 --backup-dir ~/old --suffix=.b --link-dest ../a . x",
            ("rsync", true, true),
        ),
        ("rsync --server -re.iLsfxCIvu --log-format=%i --iconv=utf8 --max-size=1 -@-1 . x", ("rsync", true, true)),
        ("rsync --server --sender -re.LsfxCIvu --files-from=- --from0 . /", ("rsync", false, true)),
        ("rsync --server -se.iLsfxCIvu", ("rsync", true, true)),
        ("rsync --server --sender -se31.1iLs", ("rsync", false, true)),
        ("sudo rsync --server --sender -re.iLs . /etc", ("rsync", false, false)),
        ("/usr/local/bin/rsync --server -r . x", ("rsync", true, true)),
        ("/usr/lib/openssh/sftp-server", ("sftp", false, true)),
        ("/usr/libexec/sftp-server -f AUTH -l INFO -e -R -u 022 -d /srv -P remove,rename", ("sftp", false, true)),
        ("internal-sftp -lVERBOSE", ("sftp", false, true)),
        ("sudo /usr/lib/openssh/sftp-server", ("sftp", false, false)),
    ] {
        assert_eq!(kind(command), Some(expected), "{command:?}");
    }
}

#[test]
fn what_is_not_a_transfer_and_nothing_else() {
    for command in [
        "",
        "scp",
        "scp -t",
        "scp a b",
        "scp -t a b",
        "scp -t -f a",
        "scp -f a -t",
        "scp -tS /tmp/x a",
        "scp -S /tmp/x -t a",
        "scp -t -oProxyCommand=id a",
        "scp -t a -S/tmp/x",
        "scp -f *",
        "scp -f [-]t",
        "scp -t a; id",
        "scp -t a && id",
        "scp -t a > /etc/x",
        "scp -t $HOME",
        "scp -t `id`",
        "scp -t {a,-Sx}",
        "scp -t a\nid",
        "PATH=/tmp scp -t a",
        "sc* -t a",
        "~/scp -t a",
        "/tmp/scp -t a",
        "./scp -t a",
        "/usr/bin/../../tmp/scp -t a",
        "/usr/bin//scp -t a",
        "'/tmp/scp' -t a",
        "\\/tmp/scp -t a",
        "\"scp\"x -t a",
        "./rsync --server . a",
        "sudo /tmp/scp -t a",
        "sudo -s scp -t a",
        "sudo PATH=/tmp scp -t a",
        "sudo -u scp -t a",
        "sudo -E scp -t a",
        "env LD_PRELOAD=/tmp/x.so scp -t a",
        "env -S 'sh -c id' scp -t a",
        "nice -n 5",
        "sudo sudo sudo sudo sudo scp -t a",
        "rsync",
        "rsync a b",
        "rsync -r --server . a",
        "rsync --sender --server . a",
        "rsync --server",
        "rsync --server --sender -e 'sh -c x' . a",
        "rsync --server --sender -e . a",
        "rsync --server --sender -re'sh -c x' . a",
        "rsync --server --rsh=id . a",
        "rsync --server --rsync-path=id . a",
        "rsync --server --log-file=/etc/x . a",
        "rsync --server --sender . a --log-file=/etc/x",
        "rsync --server --sender . a '--log-file=/etc/x'",
        "rsync --server --sender . a --log\\-file=/etc/x",
        "rsync --server --log-file /etc/x . a",
        "rsync --server --log-file-format=x . a",
        "rsync --server --daemon .",
        "rsync --server --config=/tmp/c --daemon .",
        "rsync --server --dparam=x --daemon .",
        "rsync --server --write-batch=/x . a",
        "rsync --server --only-write-batch=X . a",
        "rsync --server --read-batch=/x . a",
        "rsync --server --early-input=/x . a",
        "rsync --server --password-file=/x . a",
        "rsync --server -M--log-file=/x . a",
        "rsync --server --remote-option=--log-file=/x . a",
        "rsync --server --sender -T /etc . a",
        "rsync --server --sender --unheard-of . a",
        "rsync --server --sender --delete=1 . a",
        "rsync --server --sender -r . *",
        "rsync --server --sender --backup-dir * . a",
        "rsync --server --sender -r{,--log-file=x} . a",
        "rsync --server --sender -B700x . a",
        "rsync --server --sender --server . a",
        "sftp-server -Q requests",
        "sftp-server /tmp",
        "sftp-server -f",
        "sftp",
        "/tmp/sftp-server",
        "/usr/bin/internal",
    ] {
        assert_eq!(kind(command), None, "{command:?}");
    }
    assert_eq!(recognise(b"scp -t \xff"), None);
    assert_eq!(recognise(&[b"scp -t ".as_slice(), &vec![b'a'; 70_000]].concat()), None);
}

#[test]
fn paths_and_flags_are_read() {
    let Kind::Scp(scp) = recognise(b"scp -prdt '/srv/a b'").unwrap().kind else { panic!() };
    assert_eq!(
        scp,
        Scp { upload: true, recursive: true, preserve: true, directory: true, paths: vec!["/srv/a b".to_owned()] }
    );
    let command = b"rsync --server --sender -slogDtpre.iLsfxCIvu --delete-excluded --new-compress . a\\ b 'c'";
    let Kind::Rsync(options) = recognise(command).unwrap().kind else { panic!() };
    assert!(options.sender && options.secluded && !options.removes_sources);
    assert_eq!(options.paths, ["a b", "c"]);
}
