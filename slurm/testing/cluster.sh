#!/usr/bin/env bash
# A real Slurm of several nodes on one machine, for tests and for trying a job before a real cluster sees it.
#
# usage: cluster.sh install             Debian, Ubuntu: install the packages it needs
#        cluster.sh start               bring it up; starts only what is down
#        cluster.sh stop [--purge]      cancel every job, bring it down; --purge removes the state folder as well
#        cluster.sh status              what is up; exit code 3 when something is down
#        cluster.sh exec CMD [ARG..]    run a command on the login node: exec sbatch job.sbatch
#        cluster.sh node-kill NODE      a power cut: n2 and every process in it die at once
#        cluster.sh node-start NODE     switch it on again
#        cluster.sh preempt SECONDS     a more urgent job takes every node for so long, and preempts what runs there
#        cluster.sh time-limit JOB SECONDS    let the job's time be over in so many seconds, up to a minute later
#
# environment, the same for every verb of one cluster:
#        FMT_SLURM_STATE  state folder; one cluster a folder, as many side by side as wished   /tmp/fmt-slurm
#        FMT_SLURM_NODES  nodes, called n1, n2, ..                                             2
#        FMT_SLURM_CPUS, FMT_SLURM_MEM   CPUs and MB that each node claims to have             4, 8000
#        FMT_SLURM_GPUS   GPUs each node claims to have; null devices, good for counting only  0
#        FMT_SLURM_SLURMD_TIMEOUT  seconds until a silent node counts as down                  10
#        FMT_SLURM_USER_SIGNAL  1: preempted jobs get the signal they asked for, not SIGTERM    0
#
# It needs root, but neither systemd nor cgroups, and leaves the network of the machine alone. A node is a network,
# mount, uts, ipc and pid namespace of its own: own address, hostname, /dev/shm and process list, on the file system of
# the machine. $FMT_SLURM_STATE/bin holds sbatch, squeue, .. that run on the login node, so that from anywhere
#        PATH=/tmp/fmt-slurm/bin:$PATH fmtrain run recipe=tiny launch=slurm launch.nodes=2 --wait
# works. Partitions: main, and urgent, which preempts it after a GraceTime of 15 s. There is no accounting database.
set -euo pipefail
callers_path=$PATH
export PATH=/usr/sbin:/usr/bin:/sbin:/bin:$PATH # first of all: the caller's may begin with another cluster's bin

PACKAGES=(slurmctld slurmd slurm-client munge iproute2)
CLIENTS=(sbatch scancel scontrol sinfo squeue)

state=$(realpath -m "${FMT_SLURM_STATE:-/tmp/fmt-slurm}")
count=${FMT_SLURM_NODES:-2}
cpus=${FMT_SLURM_CPUS:-4}
memory=${FMT_SLURM_MEM:-8000}
gpus=${FMT_SLURM_GPUS:-0}

# Names of this cluster's own, derived from its folder: namespaces are fs<hash>-n1, addresses 10.16-215.x.y.
hash=$(printf %s "$state" | cksum | cut -d' ' -f1)
id=fs$hash
net=10.$((16 + hash % 200)).$((hash / 200 % 256))
export SLURM_CONF=$state/slurm.conf

die() {
  printf 'cluster.sh: %s\n' "$*" >&2
  exit 2
}

help() { sed -n '/^# usage/,/^set /{/^set /d; s/^# \{0,1\}//; p}' "$0"; }

node_names() { seq -f 'n%g' 1 "$count"; }

login() { ip netns exec "$id-login" "$@"; }

has_namespace() { ip netns list | cut -d' ' -f1 | grep -qx "$id-$1"; }

wait_for() { # SECONDS CMD..: try until it succeeds
  local seconds=$1
  shift
  for _ in $(seq $((seconds * 10))); do
    if "$@" >/dev/null 2>&1; then return 0; fi
    sleep 0.1
  done
  echo "cluster.sh: no success within $seconds s: $*; see $state/log" >&2
  return 1
}

# --- processes: a pid file holds the pid and when it began, so that a pid used anew is never taken for ours ---------

began() { # PID: the clock tick it began at; nothing for one that is gone or a zombie
  sed -n 's/.*) //; /^Z/!p' "/proc/$1/stat" 2>/dev/null | cut -d' ' -f20
}

record() { echo "$2 $(began "$2")" >"$state/$1.pid"; }

pid_of() { # NAME: its pid when it is up
  local pid when
  [ -s "$state/$1.pid" ] || return 1
  read -r pid when <"$state/$1.pid"
  [ -n "$when" ] && [ "$when" = "$(began "$pid")" ] && echo "$pid"
}

is_down() { ! pid_of "$1"; }

reap() { # NAME: TERM, three seconds to leave, KILL
  local pid
  if pid=$(pid_of "$1"); then
    kill "$pid" 2>/dev/null || :
    for _ in $(seq 30); do
      if pid_of "$1" >/dev/null; then sleep 0.1; else break; fi
    done
    if pid_of "$1" >/dev/null; then kill -9 "$pid" 2>/dev/null || :; fi
  fi
  rm -f "$state/$1.pid"
}

# --- configuration ---------------------------------------------------------------------------------------------------

write_clients() {
  local name
  for name in "${CLIENTS[@]}"; do
    # A job and a login node inherit the PATH that this is on: there the command itself is meant.
    cat >"$state/bin/$name" <<SH
#!/bin/sh
[ -z "\${SLURM_JOB_ID:-}\${FMT_SLURM_LOGIN:-}" ] || exec /usr/bin/$name "\$@"
FMT_SLURM_STATE='$state' exec '$(realpath "$0")' exec /usr/bin/$name "\$@"
SH
    chmod 755 "$state/bin/$name"
  done
}

write_gres() { # a plain file in place of a character device would leave CUDA_VISIBLE_DEVICES empty
  local i
  : >"$state/gres.conf"
  for ((i = 0; i < gpus; i++)); do
    [ -c "$state/dev/nvidia$i" ] || mknod "$state/dev/nvidia$i" c 1 3
    echo "NodeName=n[1-$count] Name=gpu Type=fake File=$state/dev/nvidia$i" >>"$state/gres.conf"
  done
}

write_hosts() {
  local i
  echo "127.0.0.1 localhost"
  echo "$net.1 login"
  for ((i = 1; i <= count; i++)); do echo "$net.$((10 + i)) n$i"; done
}

write_conf() {
  local i gres='' parameters=''
  if [ "$gpus" -gt 0 ]; then gres="Gres=gpu:fake:$gpus"; fi
  if [ "${FMT_SLURM_USER_SIGNAL:-0}" = 1 ]; then parameters=SlurmctldParameters=preempt_send_user_signal; fi
  cat <<CONF
ClusterName=fmt
SlurmctldHost=login($net.1)
SlurmUser=root
AuthType=auth/munge
# Credentials of the default 120 s would delay every requeue by as much.
AuthInfo=socket=$state/run/munge.sock,cred_expire=5
StateSaveLocation=$state/spool/ctld
SlurmdSpoolDir=$state/spool/%n
SlurmctldPidFile=$state/run/slurmctld.pid
SlurmdPidFile=$state/run/slurmd-%n.pid
SlurmctldLogFile=$state/log/slurmctld.log
SlurmdLogFile=$state/log/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
$parameters
SlurmdParameters=config_overrides
GresTypes=gpu
ReturnToService=2
SlurmdTimeout=${FMT_SLURM_SLURMD_TIMEOUT:-10}
SlurmctldTimeout=10
KillWait=5
MinJobAge=3600
DefMemPerCPU=1000
MessageTimeout=10
BatchStartTimeout=30
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=2,sched_interval=5,batch_sched_delay=0,sched_min_interval=100000
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
JobCompType=jobcomp/filetxt
JobCompLoc=$state/log/jobcomp.txt
CONF
  for ((i = 1; i <= count; i++)); do
    echo "NodeName=n$i NodeAddr=$net.$((10 + i)) CPUs=$cpus RealMemory=$memory $gres State=UNKNOWN"
  done
  echo "PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=15"
  echo "PartitionName=urgent Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF"
}

configure() {
  local name
  mkdir -p "$state"/{bin,dev,log,run,spool}
  chmod 755 "$state" "$state/run"
  chmod 700 "$state/spool"
  for name in $(node_names); do mkdir -p "$state/spool/$name"; done
  # 22.05 looks for cgroups unless told the version, and dies where there are none; v1 is never touched.
  echo "CgroupPlugin=cgroup/v1" >"$state/cgroup.conf"
  [ -s "$state/munge.key" ] || (umask 077 && head -c 1024 /dev/urandom >"$state/munge.key")
  echo "$count" >"$state/nodes"
  write_hosts >"$state/hosts"
  write_gres
  write_conf >"$state/slurm.conf"
  write_clients
}

# --- parts -----------------------------------------------------------------------------------------------------------

network_up() { # a bridge in the login node's namespace, a cable to each node
  local i
  if ! has_namespace login; then
    ip netns add "$id-login"
    login ip link set lo up
    login ip link add br0 type bridge
    login ip addr add "$net.1/24" dev br0
    login ip link set br0 up
  fi
  for ((i = 1; i <= count; i++)); do
    if has_namespace "n$i"; then continue; fi
    ip netns add "$id-n$i"
    ip link add eth0 netns "$id-n$i" type veth peer name "n$i" netns "$id-login"
    login ip link set "n$i" master br0 up
    ip -n "$id-n$i" link set lo up
    ip -n "$id-n$i" addr add "$net.$((10 + i))/24" dev eth0
    ip -n "$id-n$i" link set eth0 up
  done
}

network_down() {
  local name
  for name in $(ip netns list | cut -d' ' -f1 | grep "^$id-" || :); do ip netns del "$name"; done
}

munge_up() { # --force: it wants folders of its own modes, and warns instead
  pid_of munged >/dev/null && return 0
  setsid munged -F --force --key-file="$state/munge.key" --socket="$state/run/munge.sock" \
    --pid-file="$state/run/munged.pid" --seed-file="$state/run/munge.seed" --log-file="$state/log/munged.log" \
    >>"$state/log/munged.out" 2>&1 </dev/null &
  record munged $!
  wait_for 10 munge -n --socket="$state/run/munge.sock"
}

controller_up() {
  pid_of ctld >/dev/null && return 0
  setsid ip netns exec "$id-login" unshare --mount --uts "$0" __login slurmctld -D -f "$state/slurm.conf" \
    >>"$state/log/ctld.out" 2>&1 </dev/null &
  record ctld $!
}

node_up() {
  pid_of "$1" >/dev/null && return 0
  setsid ip netns exec "$id-$1" unshare --mount --uts --ipc --pid --fork --kill-child=KILL --mount-proc "$0" __node "$1" \
    >>"$state/log/$1.out" 2>&1 </dev/null &
  record "$1" $!
}

all_idle() {
  [ "$(login sinfo -h -N -p main -o %T | grep -cE '^(idle|mixed|allocated|completing)$')" -ge "$count" ]
}

inside_login() {
  hostname login
  mount --make-rprivate /
  mount --bind "$state/hosts" /etc/hosts
  exec "$@"
}

inside_node() { # pid 1 of the node: slurmd is not, for pid 1 has to outlive it and adopt orphans
  local pid
  hostname "$1"
  mount --make-rprivate /
  mount -t tmpfs -o mode=1777 tmpfs /dev/shm
  # /tmp is shared with the machine, so that run folders may lie there; Ray's sockets must not meet another node's.
  mkdir -p /tmp/ray
  mount -t tmpfs -o mode=700 tmpfs /tmp/ray
  mount --bind "$state/hosts" /etc/hosts
  slurmd -D -N "$1" -f "$state/slurm.conf" &
  pid=$!
  trap 'kill $pid 2>/dev/null' TERM
  while kill -0 $pid 2>/dev/null; do wait $pid || :; done
}

# --- verbs -----------------------------------------------------------------------------------------------------------

check() {
  local tool
  [ "$(id -u)" = 0 ] || die "needs root, for it makes network namespaces and mounts: run it with sudo"
  for tool in slurmctld slurmd sbatch munged ip unshare; do
    command -v "$tool" >/dev/null || die "$tool is not installed: '$0 install', or install ${PACKAGES[*]}"
  done
  # A UNIX socket's path ends at 107 bytes; a quote would break the files written here.
  [ ${#state} -le 80 ] || die "FMT_SLURM_STATE=$state: ${#state} characters, at most 80 fit a socket's path"
  case $state in *[!A-Za-z0-9._/-]*) die "FMT_SLURM_STATE=$state: only letters, digits and . _ - / can be used" ;; esac
  case $count in '' | *[!0-9]*) die "FMT_SLURM_NODES=$count is not a number; e.g. FMT_SLURM_NODES=2" ;; esac
  if [ "$count" -lt 1 ] || [ "$count" -gt 200 ]; then die "FMT_SLURM_NODES=$count: 1 to 200 are possible"; fi
  case $gpus in '' | *[!0-9]*) die "FMT_SLURM_GPUS=$gpus is not a number; e.g. FMT_SLURM_GPUS=2" ;; esac
}

check_running() {
  check
  [ -s "$state/nodes" ] || die "no cluster in $state: '$0 start' first, or give its folder with FMT_SLURM_STATE"
  count=$(<"$state/nodes")
}

check_node() {
  check_running
  node_names | grep -qx -- "${1:-}" || die "node '${1:-}': this cluster has $(node_names | paste -sd' ')"
}

install() {
  [ "$(id -u)" = 0 ] || die "install needs root: run it with sudo"
  command -v apt-get >/dev/null || die "no apt-get here: install what corresponds to Debian's ${PACKAGES[*]}"
  DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${PACKAGES[@]}"
}

preempt() { # SECONDS
  case ${1:-} in '' | *[!0-9]*) die "preempt: '${1:-}' is no number of seconds, e.g. $0 preempt 5" ;; esac
  login sbatch --parsable --partition=urgent --nodes="$count" --exclusive --output=/dev/null --wrap="sleep $1"
}

time_limit() { # JOB SECONDS
  local ran
  case ${2:-} in '' | *[!0-9]*) die "time-limit: '${2:-}' is no number of seconds, e.g. $0 time-limit 17 90" ;; esac
  ran=$(login scontrol show job "$1" | sed -n 's/.*RunTime=\([0-9:-]*\) .*/\1/p')
  ran=$(awk -F'[:-]' '{ print ((NF > 3 ? $(NF - 3) * 24 : 0) + $(NF - 2)) * 60 + $(NF - 1) + ($NF > 0) }' <<<"$ran")
  login scontrol update "jobid=$1" "TimeLimit=$((ran + ($2 + 59) / 60))"
}

start() {
  local name
  check
  if pid_of ctld >/dev/null && [ "$(cat "$state/nodes")" != "$count" ]; then
    die "$state runs with $(cat "$state/nodes") nodes, asked for $count: '$0 stop' first"
  fi
  configure
  network_up
  munge_up
  controller_up
  for name in $(node_names); do node_up "$name"; done
  wait_for 30 login scontrol ping
  wait_for 60 all_idle
  login sinfo -N -p main -o '%N %T %c %m %G'
}

stop() {
  local name
  check
  if [ -s "$state/nodes" ]; then
    count=$(<"$state/nodes")
    if pid_of ctld >/dev/null; then
      login timeout 5 scancel -u root -f 2>/dev/null || :
      login timeout 5 scontrol shutdown 2>/dev/null || :
    fi
    for name in $(node_names) ctld munged; do reap "$name" & done # side by side: each may take its three seconds
    wait
  fi
  network_down
  if [ "${1:-}" = --purge ]; then
    # Only what this script made: the folder may be one that was given by mistake.
    rm -rf "${state:?}"/{bin,dev,log,run,spool} "$state"/{slurm,gres,cgroup}.conf "$state"/{hosts,nodes,munge.key}
    if [ -d "$state" ]; then rmdir --ignore-fail-on-non-empty "$state"; fi
  fi
}

status() {
  local name pid down=0
  check_running
  for name in munged ctld $(node_names); do
    if pid=$(pid_of "$name"); then echo "$name up, pid $pid"; else
      echo "$name DOWN"
      down=3
    fi
  done
  if pid_of ctld >/dev/null; then login sinfo -N -p main -o '%N %T %c %m %G %E'; fi
  return $down
}

verb=${1:-}
if [ $# -gt 0 ]; then shift; fi
case $verb in
install) install ;;
start) start ;;
stop) stop "$@" ;;
preempt | time-limit)
  check_running
  "${verb//-/_}" "$@"
  ;;
status) status ;;
exec)
  [ $# -gt 0 ] || die "exec: no command given, e.g. $0 exec sinfo"
  check_running
  pid_of ctld >/dev/null || die "the cluster in $state is down: '$0 start' first"
  exec ip netns exec "$id-login" unshare --mount --uts "$0" __login env PATH="$callers_path" FMT_SLURM_LOGIN=1 "$@"
  ;;
node-kill)
  check_node "$@"
  pid=$(pid_of "$1") || die "$1 is down already"
  kill -9 "$pid"
  wait_for 10 is_down "$1"
  ;;
node-start)
  check_node "$@"
  node_up "$1"
  ;;
__login) inside_login "$@" ;;
__node) inside_node "$@" ;;
help | -h | --help) help ;;
*)
  help >&2
  exit 2
  ;;
esac
