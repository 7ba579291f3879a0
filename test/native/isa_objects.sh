#!/bin/sh
# isa_objects.sh NM OBJDUMP RULE OBJECT...
# Proves of object files compiled for one instruction set that nothing of them can run elsewhere:
# no weak symbol (the linker could choose its copy for baseline code), no instruction outside RULE.
#   scalar      x86-64 as it began: no AVX of any kind
#   avx2        no EVEX encoding (its first byte is 62): no zmm, mask or upper registers; no dot products
#   avxvnni     the same with the VEX encoded dot products
#   avx512      of AVX-512 only F, BW, DQ and VL
#   avx512vbmi  VBMI and VNNI too
#   amx         BF16 and the tiles too
#   neon        Armv8.0 (there it is the scalar rule as well): no dot or matrix products, no arithmetic on half precision
#   neondot     SDOT and UDOT too
#   neoni8mm    byte matrix products too
# Objects of a level that hold none of its own instructions are refused as well: they are another level's.
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
# Of AVX-512 everything but what the levels add one by one.
avx512='vpopcnt|vpshufbitqmb|vp(compress|expand)[bw]|vpsh[lr]d|vpconflict|vplzcnt|vpbroadcastm|vpmadd52|vp2intersect'
avx512="$avx512|\{vex\}|vgf2p8|vaes|vpclmul|v[a-z0-9]+[ps]h |vcvt[a-z0-9]*2ph[a-z]* |v4f"
vbmi='vperm[it2]*b |vpmultishiftqb|vpdp'
bf16='vdpbf16|vcvtne'
amx='tdp|tile|ldtilecfg|sttilecfg'
# Of Arm everything past Armv8.0 but what the levels add one by one.
arm='cas[abhlp]*|swp[abhl]*|ld(add|clr|set|eor|[su]max|[su]min)[abhl]*|sqrdml[as]h|fmlal2?|fmlsl2?|bf[a-z0-9]+t|bfmmla'
arm="(($arm)	|f(add|sub|mul|div|ml[as]|max|min|neg|abs|cvt[a-z]+[su]|sqrt)	v[0-9]+\.[48]h|[a-z0-9]+	[zp][0-9]+\.)"
own=''
case $rule in
  scalar) foreign='%[yz]mm|	v[a-z]|	(pshufb|pmaddubsw|pmulld|p?blendv[a-z]*|popcnt|lzcnt|andn|bzhi|pdep|pext) ' ;;
  avx2)
    own='%ymm'
    foreign="$evex|%zmm|%k[0-7]|	(\{vex\}|vpdp|vaes|vpclmul|vgf2p8|vpmadd52|vbcstne|vcvtne)"
    ;;
  avxvnni)
    own='	(\{vex\} )?vpdp(bu|ws)sds? '
    foreign="$evex|%zmm|%k[0-7]|vpdpb(ss|su|uu)|vpdpw(su|us|uu)|vpmadd52|	(vaes|vpclmul|vgf2p8|vbcstne|vcvtne)"
    ;;
  avx512)
    own='%zmm'
    foreign="	($avx512|$vbmi|$bf16|$amx)"
    ;;
  avx512vbmi)
    own='	(vpermb|vpdp(bu|ws)sd) '
    foreign="	($avx512|$bf16|$amx)"
    ;;
  amx)
    own='	tdp'
    foreign="	($avx512)"
    ;;
  neon)
    own='	tbl	'
    foreign="	($arm|([su]|us|su)(dot|mmla)	)"
    ;;
  neondot)
    own='	sdot	'
    foreign="	($arm|(us|su)dot	|([su]|us)mmla	)"
    ;;
  neoni8mm)
    own='	smmla	'
    foreign="	$arm"
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
  [ -n "$own" ] && echo "$listing" | grep -qE "$own" && seen=yes
done
if [ -n "$own" ] && [ -z "${seen:-}" ]; then
  echo "no instruction like '$own' in any object: these are not $rule objects"
  status=1
fi
exit $status
