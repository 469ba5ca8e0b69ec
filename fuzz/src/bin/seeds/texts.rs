//! What the command line sends to the daemon, and how it is configured.

use serde_json::{Value, json};

use crate::Seeds;

fn request(id: u64, method: &str, params: &Value) -> String {
    json!({"jsonrpc": "2.0", "method": method, "params": params, "id": id}).to_string() + "\n"
}

pub(crate) fn control() -> Seeds {
    let one = |method, params: Value| request(1, method, &params).into_bytes();
    let nothing = || json!({});
    vec![
        ("port-list", one("port.list", nothing())),
        ("port-show", one("port.show", json!({"name": "vm1"}))),
        (
            "port-add",
            one("port.add", json!({"name": "vm1", "spec": "vhost-user:/run/polder/vm1.sock,queues=2"})),
        ),
        ("port-add-tap", one("port.add", json!({"name": "t0", "spec": "tap:t0"}))),
        ("port-del", one("port.del", json!({"name": "vm1"}))),
        ("fdb-list", one("fdb.list", nothing())),
        ("fdb-flush", one("fdb.flush", nothing())),
        ("stats", one("stats", nothing())),
        ("stages", one("stages", json!({"seconds": 1}))),
        (
            "several",
            [request(1, "version", &nothing()), request(2, "stats", &nothing())].concat().into_bytes(),
        ),
        ("notification", b"{\"jsonrpc\":\"2.0\",\"method\":\"stats\"}\n\n".to_vec()),
        ("no-params", b"{\"jsonrpc\":\"2.0\",\"method\":\"version\",\"id\":\"a\"}\n".to_vec()),
    ]
}

pub(crate) fn config() -> Seeds {
    let file = |text: &str| [b"\0", text.as_bytes()].concat();
    let line = |words: &str| [b"\x01", words.replace(' ', "\n").as_bytes()].concat();
    vec![
        ("empty", file("")),
        ("whole", file(WHOLE)),
        ("ports", file(PORTS)),
        ("memory", file("[memory]\nsize = \"1G\"\nhugepages = \"2m\"\n")),
        (
            "switch",
            file("[switch]\nmac_ageing_s = 1\nmac_table = 1024\nmac_quota = 512\npoll = \"always\"\n"),
        ),
        (
            "run",
            line("run --port vm1=vhost-user:/run/vm1.sock,queues=2 --lcores 0 --memory 64M --hugepages off"),
        ),
        (
            "run-kinds",
            line("run --port a=tap:t0 --port b=pcap:tx=/tmp/x --port c=vfio:01:10.0,queues=2 --port d=null"),
        ),
        ("run-xdp", line("run --port x=af_xdp:lo,copy --port y=af_packet:lo --port z=loopback --lcores 0-1")),
        ("run-client", line("run --control /tmp/c --port v=vhost-user:/run/v.sock,client --log info")),
        ("port-add", line("port add vm1=vhost-user:/run/vm1.sock")),
        ("stats", line("stats --stages 7 --json")),
        ("nic", line("nic bind 0000:01:10.0 --force")),
    ]
}

const WHOLE: &str = r#"control = "/run/polder/control.sock"

[switch]
mac_ageing_s = 300
mac_table = 65536
mac_quota = 32768
poll = "adaptive"

[memory]
size = "64M"
hugepages = "auto"

[[lcore]]
cpu = 0

[[port]]
name = "vm1"
spec = "vhost-user:/run/polder/vm1.sock,queues=2"
"#;

const PORTS: &str = r#"[[port]]
name = "a"
spec = "tap:t0"
[[port]]
name = "b"
spec = "vfio:0000:01:10.0,queues=2"
[[port]]
name = "c"
spec = "pcap:rx=/tmp/in.pcap,tx=/tmp/out.pcap"
"#;
