//! The shell functions that measure, one for each kind of sensor, and what stands around them.
//!
//! They run in any POSIX shell, also that of BusyBox. They contain no single quote and few backslashes, which
//! would take four bytes each in a request. They print figures and judge none. Which of them a request carries
//! is unknown here.

/// Sets the search path and a variable with a line feed. Defines functions to report an error or a
/// note (one line each), to require a readable file, and to read a variable from the first line of
/// a file.
pub(super) const PROLOGUE: &str = r#"export PATH="$PATH:/bin:/usr/bin:/sbin:/usr/sbin"
nl="
"
no() { printf "@error %.200s\n" "${1%%"$nl"*}"; exit; }
note() { [ -z "$1" ] || printf "@note %.100s\n" "${1%%"$nl"*}"; }
can() { [ -r "$1" ] || no "cannot read $1"; }
get() { IFS= read -r $1 2>/dev/null <"$2"; }
"#;

/// Runs each sensor in a subshell, so that its variables and failures do not affect the others.
pub(super) const EPILOGUE: &str = r#"echo "@fleetgate 1"
while [ $# -gt 2 ]
do
echo "@key $1"
( "fg_$2" "$3" )
echo @end
shift 3
done"#;

/// Finds the figures by their shape instead of their column, because a device name may contain
/// blanks. If a file system counts no inodes (btrfs, vfat), or `df` does not support the option,
/// there are no inode figures.
const DISK: &str = r#"fg_df() {
set -f
i=$2 u=$3
set -- ${1##*"$nl"}
while [ $# -gt 3 ]
do
case $2,$3,$4 in
*[!0-9,]*|,*|*,|*,,*) shift ;;
*)
echo "${i}used $3$u
${i}free $4$u"
return ;;
esac
done
[ "$i" ] || no "df: $o"
}
fg_disk() {
o=$(df -P -k -- "$1" 2>&1) || no "$o"
fg_df "$o" "" " kB"
o=$(df -P -i -- "$1" 2>/dev/null) && fg_df "$o" i
}
"#;

/// Finds file systems on block devices that are read-only but should be writable; the kernel
/// remounts one with errors that way. The intended mode comes from `/etc/fstab` or, for the root,
/// from the kernel's command line. Kinds that cannot be written, and read-only views of what is
/// writable elsewhere, are left out. A file system that neither source names was mounted by hand.
const MOUNTS: &str = r##"fg_mounts() {
can /proc/mounts
p= q= f= k= n=0 w=
set -f
read -r k 2>/dev/null </proc/cmdline
case " $k " in
*" rw "*) f=" / " ;;
esac
[ -r /etc/fstab ] && while read -r d m t o r
do
case $d,,$o, in
"#"*) ;;
*,ro,*) q="$q $m " ;;
*) f="$f $m " ;;
esac
done </etc/fstab
while read -r d m t o r
do
case $t,$d,,$o, in
squashfs,*|iso9660,*|udf,*|erofs,*|cramfs,*|romfs,*|*,/dev/loop*) ;;
*,/dev/*,ro,*) p="$p $d $m" ;;
*,/dev/*) q="$q $d " ;;
esac
done </proc/mounts
set -- $p
while [ $# -gt 1 ]
do
case $q in
*" $1 "*|*" $2 "*) ;;
*) case $f in
*" $2 "*) n=$((n+1)) w=$2 ;;
esac ;;
esac
shift 2
done
echo "read_only $n"
note "$w"
}
"##;

const LOAD: &str = r#"fg_load() {
can /proc/loadavg
read -r a b c r </proc/loadavg
echo "load1 $a
load5 $b
load15 $c"
n=0
[ -r /proc/stat ] && while read -r a r
do
case $a in
cpu) ;;
cpu*) n=$((n+1)) ;;
*) break ;;
esac
done </proc/stat
[ $n -gt 0 ] && echo "cpus $n"
}
"#;

/// Estimates the available memory on kernels before 3.14, which do not report it: free, buffers and
/// cache come close.
const MEMORY: &str = r#"fg_memory() {
can /proc/meminfo
t= a= f=0 s=0 e=0
while read -r k v r
do
case $k in
SwapTotal:) s=$v ;;
SwapFree:) e=$v ;;
MemTotal:) t=$v ;;
MemAvailable:) a=$v ;;
MemFree:|Buffers:|Cached:) f=$((f+v)) ;;
esac
done </proc/meminfo
[ "$t" ] || no "no MemTotal in /proc/meminfo"
echo "total $t kB
available ${a:-$f} kB"
[ $s = 0 ] || { echo "swap $s kB
swap_free $e kB"; }
}
"#;

const UPTIME: &str = r#"fg_uptime() {
can /proc/uptime
read -r a r </proc/uptime
echo "uptime $a s"
}
"#;

/// Names a sensor by its zone type or chip name, or by chip and label: `cpu-thermal`, `coretemp`,
/// `coretemp/Core 0`. Unconnected inputs report 127 °C, or less than any diode measures, so the
/// hottest of the others is used. A machine without sensors (as most virtual ones) is no error.
const TEMPERATURE: &str = r#"fg_temperature() {
m= w=
for f in /sys/class/thermal/thermal_zone*/temp /sys/class/hwmon/hwmon*/temp*_input
do
[ -r "$f" ] || continue
n= l=
case $f in
*/temp) get n "${f%temp}type" ;;
*)
get n "${f%/*}/name"
[ -r "${f%input}label" ] && get l "${f%input}label"
;;
esac
case $1 in
""|"$n"|"$n/$l") ;;
*) continue ;;
esac
v=
get v "$f"
case ${v#-} in
""|*[!0-9]*) continue ;;
esac
[ "$1" ] || [ "$v" -lt 126000 -a "$v" -gt -60000 ] || continue
if [ -z "$m" ] || [ "$v" -gt "$m" ]
then m=$v w=$n${l:+/$l}
fi
done
[ "$m$1" ] || exit 0
[ "$m" ] || no "no temperature sensor named $1 can be read"
echo "temperature $m mC"
note "$w"
}
"#;

/// The kernel keeps 15 bytes of a process name.
const PROCESSES: &str = r#"fg_processes() {
[ -r /proc/self/stat ] || no "cannot read /proc"
w=$(printf "%.15s" "$1")
n=0
for p in /proc/[0-9]*
do
if [ "$w" ]
then
c=
get c "$p/comm"
[ "$c" = "$w" ] || continue
fi
n=$((n+1))
done
echo "processes $n"
}
"#;

/// Measures the age by the device's own clock, so that a wrong clock does no harm. In a folder it
/// takes the newest of the regular files directly in it. Hidden files are left out, because
/// unfinished uploads are hidden by convention.
const FILE_AGE: &str = r#"fg_file_age() {
[ -e "$1" ] || no "no such file: $1"
n=$1
if [ -d "$1" ]
then
[ -r "$1" ] && [ -x "$1" ] || no "cannot read folder $1"
n=
for f in "${1%/}"/*
do
[ -f "$f" ] || continue
if [ -z "$n" ] || [ "$f" -nt "$n" ]
then n=$f
fi
done
[ "$n" ] || { echo @empty; no "no file in $1"; }
note "${n##*/}"
fi
t=$(date -r "$n" +%s 2>/dev/null || stat -c %Y -- "$n" 2>/dev/null) || no "cannot read the time of $n"
echo "age $(($(date +%s)-t)) s"
}
"#;

/// Matches an interface's class of two hexadecimal digits: 06 still images, 0e video, 02 serial
/// boards.
const USB: &str = r#"fg_usb() {
[ -d /sys/bus/usb/devices ] || no "no USB on this machine"
n=0 w=
for d in /sys/bus/usb/devices/*
do
c= v= p= m= t=
get c "$d/bInterfaceClass"
get v "$d/idVendor"
get p "$d/idProduct"
get m "$d/manufacturer"
get t "$d/product"
[ "$v$c" ] || continue
[ "class:$c" != "$1" ] || n=$((n+1))
[ "$v" ] || continue
case "$v:$p $m $t" in
*"$1"*) n=$((n+1)) w="$m $t" ;;
esac
done
echo "devices $n"
note "$w"
}
"#;

const USERS: &str = r#"fg_users() {
o=$(who 2>&1) || no "$o"
n=0
while read -r a r
do
[ -z "$a" ] || n=$((n+1))
done <<fg
$o
fg
echo "users $n"
}
"#;

/// Reads the ever-growing counters twice, a second apart, and computes the share.
const CPU: &str = r#"fg_cpu() {
can /proc/stat
read -r x u n s i w q f t r </proc/stat
a=$((u+n+s+q+f+t)) b=$((i+w))
sleep 1
read -r x u n s i w q f t r </proc/stat
echo "busy $((u+n+s+q+f+t-a))
idle $((i+w-b))"
}
"#;

const TRAFFIC: &str = r#"fg_traffic() {
w=$1
[ "$w" ] || while read -r a b r
do
[ "$b" = 00000000 ] && w=$a && break
done </proc/net/route
[ "$w" ] || no "no default route"
d=/sys/class/net/$w/statistics
[ -r "$d/rx_bytes" ] || no "no interface $w"
read -r a <"$d/rx_bytes"; read -r b <"$d/tx_bytes"
sleep 1
read -r c <"$d/rx_bytes"; read -r e <"$d/tx_bytes"
echo "rx $c B
tx $e B
in $((c-a)) B
out $((e-b)) B"
note "$w"
}
"#;

const DAILY: &str = r#"fg_daily() {
[ -d "$1" ] || no "no such folder: $1"
o=$(find "$1" -type f -mtime -1 -exec ls -lnd {} + 2>/dev/null)
n=0 b=0
while read -r m l u g s r
do
case $m in
-*) ;;
*) continue ;;
esac
case $s in
""|*[!0-9]*) continue ;;
esac
n=$((n+1)) b=$((b+s))
done <<fg
$o
fg
echo "files $n
bytes $b B"
}
"#;

/// Copies the file's own lines to the output, except those that look like a mark of ours.
const VALUES: &str = r#"fg_values() {
[ -f "$1" ] && [ -r "$1" ] || no "cannot read $1"
t=$(date -r "$1" +%s 2>/dev/null || stat -c %Y -- "$1" 2>/dev/null) && echo "age $(($(date +%s)-t)) s"
while IFS= read -r l || [ "$l" ]
do
case $l in
""|@*) ;;
*) printf "%.80s\n" "$l" ;;
esac
done <"$1"
}
"#;

/// Kinds by their name in a request, with the shell function.
pub(super) const KINDS: [(&str, &str); 14] = [
    ("disk", DISK),
    ("mounts", MOUNTS),
    ("load", LOAD),
    ("memory", MEMORY),
    ("uptime", UPTIME),
    ("temperature", TEMPERATURE),
    ("processes", PROCESSES),
    ("file_age", FILE_AGE),
    ("usb", USB),
    ("users", USERS),
    ("cpu", CPU),
    ("traffic", TRAFFIC),
    ("daily", DAILY),
    ("values", VALUES),
];
