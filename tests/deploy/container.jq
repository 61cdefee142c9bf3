# The configuration of a container, out of the one that `runc spec` writes.
#
# $image: the configuration of the image, as `buildah inspect` prints it below .OCIv1.config.
# $settings: {name, root, command, environment, mounts, memory, capabilities, read_only, no_new_privileges}; the memory in bytes,
#   the command null for that of the image, the mounts as {source, target}.
# $cgroup: the path of its cgroup. $open_files: how many files a process can have open.

($image.User | split(":") | map(tonumber)) as [$uid, $gid]
| .root = {path: $settings.root, readonly: $settings.read_only}
| .hostname = $settings.name
| .process = {
    user: {uid: $uid, gid: $gid},
    args: ($image.Entrypoint + ($settings.command // $image.Cmd)),
    env: ($image.Env + [$settings.environment | to_entries[] | "\(.key)=\(.value)"]),
    cwd: $image.WorkingDir,
    capabilities: ($settings.capabilities | {bounding: ., effective: ., permitted: .}),
    noNewPrivileges: $settings.no_new_privileges,
    rlimits: [{type: "RLIMIT_NOFILE", soft: $open_files, hard: $open_files}]
  }
| .mounts += [$settings.mounts[] | {
    destination: .target, source, type: "bind", options: ["rbind", "ro", "nosuid", "nodev", "noexec"]
  }]
| .linux.cgroupsPath = $cgroup
# Without swap, so that more memory than the limit is a kill.
| .linux.resources.memory = {limit: $settings.memory, swap: $settings.memory}
# The containers share the network of the script.
| .linux.namespaces |= map(select(.type != "network"))
