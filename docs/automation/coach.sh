#!/usr/bin/env bash
# Photos of one person in, the coach's page out, over ComfyUI's HTTP API; curl and Python for JSON.
#
#     coach.sh http://127.0.0.1:8188 ~/my_selfies workflows/api/coach_photos.json page.png
set -euo pipefail
server=$1 photos=$2 workflow=$3 page=$4
folder="likeness_$(printf '%05x%05x' $((RANDOM * 32)) $((RANDOM * 32)))"

for photo in "$photos"/*; do
    curl -sSf -o /dev/null -F "image=@$photo" -F "subfolder=$folder" "$server/upload/image"
done

body=$(python3 -c '
import json, sys
prompt = json.load(open(sys.argv[1]))
prompt["photos"]["inputs"]["folder"] = sys.argv[2]
print(json.dumps({"prompt": prompt}))' "$workflow" "$folder")
answer=$(curl -sSf -H "Content-Type: application/json" -d "$body" "$server/prompt")
id=$(python3 -c 'import json, sys; print(json.loads(sys.argv[1])["prompt_id"])' "$answer")

until history=$(curl -sSf "$server/history/$id") && [ "$history" != "{}" ]; do
    sleep 1
done
query=$(python3 -c '
import json, sys, urllib.parse
record = json.loads(sys.stdin.read())[sys.argv[1]]
if record["status"]["status_str"] != "success":
    sys.exit("It did not run to its end: %s" % record["status"]["messages"][-1])
print(urllib.parse.urlencode(record["outputs"]["coach"]["images"][0]))' "$id" <<<"$history")
curl -sSf -o "$page" "$server/view?$query"
