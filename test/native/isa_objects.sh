#!/bin/sh
# isa_objects.sh NM OBJDUMP RULE OBJECT...
# Proves of object files compiled for one instruction set that nothing of them can run elsewhere:
# no weak symbol (the linker could choose its copy for baseline code), no instruction outside RULE.
#   scalar   x86-64 as it began: no AVX of any kind
#   avx2     no EVEX encoding (its first byte is 62): no zmm, mask or upper registers; no dot products
#   avx512   of AVX-512 only F, BW, DQ, VL, VNNI and VBMI
set -eu
nm=$1 objdump=$2 rule=$3
shift 3
status=0

refuse() { # object, what, lines
  [ -z "$3" ] && return
  echo "$1: $2:"
  echo "$3" | head -5
  status=1
}

evex='^ *[0-9a-f]+:	62 '
vector=''
case $rule in
  scalar) foreign='%[yz]mm|	v[a-z]|	(pshufb|pmaddubsw|pmulld|p?blendv[a-z]*|popcnt|lzcnt|andn|bzhi|pdep|pext) ' ;;
  avx2)
    vector='%ymm'
    foreign="$evex|%zmm|%k[0-7]|	(vpdp|vaes|vpclmul|vgf2p8|vpmadd52|vbcstne|vcvtne)"
    ;;
  avx512)
    vector='%zmm'
    foreign='	(vpopcnt|vpshufbitqmb|vp(compress|expand)[bw]|vpsh[lr]d|vpconflict|vplzcnt|vpbroadcastm|vpmadd52|vdpbf16'
    foreign="$foreign|vcvtne|vp2intersect|vgf2p8|vaes|vpclmul|v[a-z0-9]+[ps]h |vcvt[a-z0-9]*2ph[a-z]* |v4f|tdp|tile)"
    ;;
  *)
    echo "no such rule: $rule" >&2
    exit 2
    ;;
esac
# The two conversions of half precision that F16C and AVX-512F have themselves.
allowed='	(vcvtph2ps|vcvtps2ph) '

for object in "$@"; do
  refuse "$object" "weak symbols" "$("$nm" -C "$object" | grep -E ' [WVu] ' || true)"
  listing=$("$objdump" -d "$object")
  refuse "$object" "instructions outside $rule" "$(echo "$listing" | grep -E "$foreign" | grep -vE "$allowed" || true)"
  [ -n "$vector" ] && echo "$listing" | grep -q "$vector" && seen=yes
done
if [ -n "$vector" ] && [ -z "${seen:-}" ]; then
  echo "no $vector in any object: these are not $rule objects"
  status=1
fi
exit $status
