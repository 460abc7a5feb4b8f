//! The container a process runs in, from its control group.

/// Length of the ids that Docker, containerd, CRI-O and Podman give.
const ID: usize = 64;

/// The container id in the text of `/proc/PID/cgroup`: the last run of exactly 64 hexadecimal digits in a path, so
/// that of nested containers the inner one counts.
pub(super) fn container_id(cgroup: &str) -> Option<&str> {
    cgroup.lines().rev().filter_map(|line| line.splitn(3, ':').nth(2)).find_map(|path| {
        // CRI-O's monitor runs in a group of its own, beside the container.
        path.split('/').rev().filter(|part| !part.contains("conmon")).find_map(|part| {
            part.split(|c: char| !c.is_ascii_alphanumeric()).find(|run| {
                run.len() == ID && run.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
            })
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runtimes() {
        let id = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
        for text in [
            format!("0::/system.slice/docker-{id}.scope\n"),
            format!("12:cpu:/docker/{id}\n0::/\n"),
            format!("0::/kubepods.slice/kubepods-pod1.slice/cri-containerd-{id}.scope"),
            format!("1:name=systemd:/kubepods/besteffort/pod8/{id}"),
            format!("0::/machine.slice/libpod-{id}.scope/container"),
            format!("0::/docker/{}/docker/{id}", "f".repeat(64)),
        ] {
            assert_eq!(container_id(&text), Some(id), "{text}");
        }
        for text in [
            "0::/user.slice/user-0.slice/session-1.scope".to_owned(),
            format!("0::/crio-conmon-{id}.scope"),
            format!("0::/x/{id}0"),
            format!("0::/x/g{}", &id[1..]),
            String::new(),
        ] {
            assert_eq!(container_id(&text), None, "{text}");
        }
    }
}
