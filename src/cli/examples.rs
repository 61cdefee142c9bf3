//! What `--help` of the client commands ends with.

pub(super) const PUT: &str = "\
Examples:
  upload-gateway put report.pdf
  upload-gateway put -r photos --exclude '*.tmp' --parallel 8
  find . -name '*.mp4' | upload-gateway put --from-list - --storage signage --expire-after 30d
  upload-gateway put report.pdf --name 2026.pdf --tag finance --storage archive
  tar -c photos | upload-gateway put - --name photos.tar
  upload-gateway put disk.img --limit-rate 20MiB --wait";

pub(super) const LS: &str = "\
Examples:
  upload-gateway ls -n 20
  upload-gateway ls --phase open --since 2h
  upload-gateway ls --name report --mime 'image/*' --json
  upload-gateway ls --tag old --quiet | xargs upload-gateway rm";

pub(super) const STATUS: &str = "\
Examples:
  upload-gateway status 4f7a01c2
  upload-gateway status 4f7a01c2 --json";

pub(super) const WATCH: &str = "\
Examples:
  upload-gateway watch 4f7a01c2
  upload-gateway watch 4f7a01c2 --json > changes.jsonl";

pub(super) const GET: &str = "\
Examples:
  upload-gateway get 4f7a01c2
  upload-gateway get 4f7a01c2 copy.pdf --force
  upload-gateway get 4f7a01c2 b81d9e03 downloads/
  upload-gateway get --name report downloads/
  upload-gateway get 4f7a01c2 - | tar -x";

pub(super) const URL: &str = "\
Examples:
  upload-gateway url 4f7a01c2 --minutes 10";

pub(super) const CP: &str = "\
Examples:
  upload-gateway cp 4f7a01c2 --storage archive";

pub(super) const MV: &str = "\
Examples:
  upload-gateway mv 4f7a01c2 --storage archive --dry-run
  upload-gateway mv 4f7a01c2 --storage archive --yes";

pub(super) const RM: &str = "\
Examples:
  upload-gateway rm 4f7a01c2
  upload-gateway rm 4f7a01c2 b81d9e03 --dry-run";

pub(super) const KEEP: &str = "\
Examples:
  upload-gateway keep 4f7a01c2 --expire-after 30d
  upload-gateway keep 4f7a01c2";

pub(super) const STORAGES: &str = "\
Examples:
  upload-gateway storages
  upload-gateway storages --json";

pub(super) const LIMITS: &str = "\
Examples:
  upload-gateway limits
  upload-gateway limits archive --json";

pub(super) const CONFIG: &str = "\
Examples:
  upload-gateway config set --profile work server https://uploads.example:50051
  upload-gateway config set --profile work token_command -- print-token --audience uploads
  upload-gateway config use work
  upload-gateway config edit --editor nano";

pub(super) const HEALTH: &str = "\
Examples:
  upload-gateway health
  upload-gateway health http://127.0.0.1:9090/livez";

pub(super) const COMPLETIONS: &str = "\
Examples:
  upload-gateway completions bash > /etc/bash_completion.d/upload-gateway
  upload-gateway completions zsh > \"${fpath[1]}/_upload-gateway\"
  upload-gateway completions fish > ~/.config/fish/completions/upload-gateway.fish";

pub(super) const MAN: &str = "\
Examples:
  upload-gateway man put | man -l -
  upload-gateway man --dir /usr/local/share/man/man1";
