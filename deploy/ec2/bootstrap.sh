#!/usr/bin/env bash
# Makes an Outcrop server of an instance that runs a Neuron Deep Learning AMI (Ubuntu 24.04). Run it again at any time:
# it brings the machine to what its options say, changes nothing that is so already, and restarts the server only
# where something did change. Not yet run on a device.
set -euo pipefail

usage() {
  cat <<'USAGE'
usage: bootstrap.sh --wheel FILE --store STORE --artifact KEY --model-id ID [options]

  --wheel FILE        the package: a wheel, or s3://… of one
  --wheelhouse DIR    wheels of what it depends on, or s3://… of them (default: pip's package index)
  --store STORE       where artifacts are: s3://bucket/prefix, or a directory
  --artifact KEY      which one: what `outcrop compile push` printed
  --model-id ID       the model id that callers ask for
  --neuron-venv DIR   the AMI's environment with the SDK (default: the newest /opt/aws_neuronx_venv_pytorch_2_9*)
  --region NAME       AWS region (default: the instance's)
  --keys FILE         keys.json to start with, or s3://… of it; master.key is taken from beside it
  --state NAME        of a SecureString in Systems Manager's parameter store: the URL of the database that servers
                      share (postgresql://…); without it an instance keeps its state for itself
  --config FILE       outcrop.toml to serve with; @REGION@, @MODEL_ID@ and @ARTIFACT@ are filled in (default: the one
                      beside this script). Single settings: OUTCROP_… in /etc/outcrop/environment
  --no-start          install and enable everything, and start nothing
USAGE
  exit 2
}

say() { echo "bootstrap: $*"; }
die() {
  echo "bootstrap: $*" >&2
  exit 1
}

wheel='' wheelhouse='' store='' key='' model_id='' neuron_venv='' region='' keys='' state='' config='' start=yes
while (($#)); do
  case $1 in
    --wheel | --wheelhouse | --store | --artifact | --model-id | --neuron-venv | --region | --keys | --state | --config)
      (($# > 1)) || usage
      ;;&
    --wheel) wheel=$2 ;;
    --wheelhouse) wheelhouse=$2 ;;
    --store) store=$2 ;;
    --artifact) key=$2 ;;
    --model-id) model_id=$2 ;;
    --neuron-venv) neuron_venv=$2 ;;
    --region) region=$2 ;;
    --keys) keys=$2 ;;
    --state) state=$2 ;;
    --config) config=$2 ;;
    --no-start) start=no ;;
    *) usage ;;
  esac
  [[ $1 == --no-start ]] || shift
  shift
done
[[ $wheel && $store && $key && $model_id ]] || usage
((EUID == 0)) || die "run it as root"

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
config=${config:-$here/outcrop.toml}
prefix=/opt/outcrop
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
changed=no

put() { # MODE GROUP SOURCE TARGET: install a file of root's, if it is not there as it should be
  if [[ ! -f $4 ]] || ! cmp --silent "$3" "$4" || [[ $(stat --format='%a %G' "$4") != "${1#0} $2" ]]; then
    install -D --mode="$1" --group="$2" "$3" "$4"
    say "installed $4"
    changed=yes
  fi
}

local_copy() { # SOURCE TARGET: a file or folder here, of one here or in S3
  case $1 in
    s3://*/) aws s3 cp --recursive --only-show-errors "$1" "$2" ;;
    s3://*) aws s3 cp --only-show-errors "$1" "$2" ;;
    *) cp -r "$1" "$2" ;;
  esac
}

if [[ -z $neuron_venv ]]; then
  for each in /opt/aws_neuronx_venv_pytorch_2_9*; do
    [[ $each == *_nxd_* ]] || neuron_venv=$each
  done
fi
[[ -x $neuron_venv/bin/python ]] || die "no SDK at ${neuron_venv:-/opt/aws_neuronx_venv_pytorch_2_9}: is this a Neuron DLAMI? (--neuron-venv)"
if [[ -z $region ]]; then
  token=$(curl --silent --fail --max-time 5 --request PUT --header 'X-aws-ec2-metadata-token-ttl-seconds: 60' \
    http://169.254.169.254/latest/api/token) || die "this is no EC2 instance: give --region"
  region=$(curl --silent --fail --max-time 5 --header "X-aws-ec2-metadata-token: $token" \
    http://169.254.169.254/latest/meta-data/placement/region)
fi
export AWS_DEFAULT_REGION=$region

# -- who runs it, and who may open the devices --------------------------------------------------
getent group neuron >/dev/null || groupadd --system neuron
if ! id outcrop >/dev/null 2>&1; then
  useradd --system --home-dir /var/lib/outcrop --shell /usr/sbin/nologin --groups neuron outcrop
  say "made the user outcrop"
fi
install -d --owner=outcrop --group=outcrop --mode=0750 /var/lib/outcrop /var/lib/outcrop/artifacts
install -d --owner=root --group=outcrop --mode=0750 /etc/outcrop
put 0644 root "$here/neuron.rules" /etc/udev/rules.d/99-outcrop-neuron.rules

# -- the package: an environment of its own, which sees the AMI's SDK and does not touch it --------
if [[ ! -x $prefix/venv/bin/python ]]; then
  "$neuron_venv/bin/python" -m venv "$prefix/venv"
  say "made $prefix/venv"
fi
site=$("$prefix/venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
sdk=$("$neuron_venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
echo "import site; site.addsitedir('$sdk')" >"$work/neuron.pth"
put 0644 root "$work/neuron.pth" "$site/neuron.pth"

mkdir "$work/wheel"
local_copy "$wheel" "$work/wheel/${wheel##*/}"
digest=$(sha256sum "$work/wheel/${wheel##*/}" | cut --delimiter=' ' --fields=1)
if [[ $(cat "$prefix/wheel.sha256" 2>/dev/null) != "$digest" ]]; then
  index=()
  if [[ $wheelhouse ]]; then
    local_copy "${wheelhouse%/}/" "$work/wheelhouse"
    index=(--no-index --find-links "$work/wheelhouse")
  fi
  "$prefix/venv/bin/python" -m pip install --quiet --disable-pip-version-check "${index[@]}" --force-reinstall \
    --no-deps "$work/wheel/${wheel##*/}"
  "$prefix/venv/bin/python" -m pip install --quiet --disable-pip-version-check "${index[@]}" \
    "outcrop[otel,postgres,s3] @ file://$work/wheel/${wheel##*/}"
  echo "$digest" >"$prefix/wheel.sha256"
  say "installed ${wheel##*/}"
  changed=yes
fi

# -- the artifact, checked byte for byte -------------------------------------------------------------
artifact=/var/lib/outcrop/artifacts/${key:0:12}
if [[ ! -f $artifact/manifest.json ]]; then
  runuser --user outcrop -- env HOME=/var/lib/outcrop AWS_DEFAULT_REGION="$region" \
    "$prefix/venv/bin/outcrop" compile pull "$key" --store "$store" --out "$artifact"
  changed=yes
fi

# -- settings and services ---------------------------------------------------------------------------
if [[ $keys && ! -f /var/lib/outcrop/keys.json ]]; then
  for each in "$keys" "${keys%/*}/master.key"; do
    local_copy "$each" "$work/${each##*/}"
  done
  install --owner=outcrop --group=outcrop --mode=0600 "$work/${keys##*/}" /var/lib/outcrop/keys.json
  install --owner=outcrop --group=outcrop --mode=0600 "$work/master.key" /var/lib/outcrop/master.key
  say "installed the keys"
fi
: >"$work/state"
if [[ $state ]]; then
  url=$(aws ssm get-parameter --region "$region" --name "$state" --with-decryption --query Parameter.Value --output text)
  printf 'OUTCROP_STATE="%s"\n' "$url" >"$work/state"
fi
put 0640 outcrop "$work/state" /etc/outcrop/state
sed -e "s|@REGION@|$region|" -e "s|@MODEL_ID@|$model_id|" -e "s|@ARTIFACT@|$artifact|" "$config" >"$work/outcrop.toml"
put 0640 outcrop "$work/outcrop.toml" /etc/outcrop/outcrop.toml
put 0755 root "$here/outcrop-wait-until-ready" "$prefix/bin/outcrop-wait-until-ready"
put 0755 root "$here/outcrop-lifecycle" "$prefix/bin/outcrop-lifecycle"
put 0644 root "$here/journald@outcrop.conf" /etc/systemd/journald@outcrop.conf
for unit in outcrop outcrop-lifecycle outcrop-neuron-monitor; do
  put 0644 root "$here/$unit.service" "/etc/systemd/system/$unit.service"
  systemctl --quiet enable "$unit.service"
done

if [[ $start == no ]]; then
  say "done; start it with: systemctl start outcrop outcrop-lifecycle"
  exit 0
fi
systemctl daemon-reload
udevadm control --reload && udevadm trigger --subsystem-match=neuron_device
if ! systemctl --quiet is-active outcrop.service; then
  "$prefix/venv/bin/outcrop" doctor || die "mend what it says above, then run this again"
fi
if [[ $changed == yes ]]; then
  systemctl restart outcrop.service
fi
systemctl start outcrop.service outcrop-lifecycle.service
say "ready: http://$(hostname):8080, for callers with a key (outcrop keys create, as the user outcrop)"
