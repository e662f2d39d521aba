{{/* What the schema cannot say: values that contradict each other. All of them at once. */}}
{{- define "saker.validate" -}}
{{- $errors := list -}}
{{- $v := .Values -}}
{{- $minor := include "saker.minor" . | int -}}

{{- if lt $minor 28 -}}
{{- $errors = append $errors (printf "kubeVersion: Kubernetes 1.%d is older than 1.28" $minor) -}}
{{- end -}}

{{- if not (regexMatch "^[a-z]" (include "saker.fullname" .)) -}}
{{- $errors = append $errors (printf "the release is named '%s': the name of a Service begins with a letter; set fullnameOverride" .Release.Name) -}}
{{- end -}}

{{- $source := $v.releases.source -}}
{{- if and (eq $source "s3") (not $v.releases.url) -}}
{{- $errors = append $errors "releases.url is empty: source s3 needs s3://bucket/prefix" -}}
{{- end -}}
{{- if and (ne $source "s3") $v.releases.url -}}
{{- $errors = append $errors (printf "releases.url is '%s', but releases.source is %s: give one of both" $v.releases.url $source) -}}
{{- end -}}
{{- if and (eq $source "claim") (eq (empty $v.releases.claim.existing) (not $v.releases.claim.create)) -}}
{{- $errors = append $errors "releases.claim: source claim needs either `existing` or `create: true`" -}}
{{- end -}}
{{- if eq $source "image" -}}
{{- if not $v.releases.image.reference -}}
{{- $errors = append $errors "releases.image.reference is empty: source image needs an image" -}}
{{- end -}}
{{- if lt $minor 33 -}}
{{- $errors = append $errors (printf "releases.source is image: Kubernetes 1.%d does not mount images, 1.33 and later do" $minor) -}}
{{- end -}}
{{- if $v.training.enabled -}}
{{- $errors = append $errors "training.enabled: trainings cannot publish into an image; releases.source must be s3 or claim" -}}
{{- end -}}
{{- end -}}

{{- $stores := 0 -}}
{{- range list $v.store.existingSecret $v.store.url $v.valkey.enabled -}}
{{- if . -}}{{- $stores = add $stores 1 -}}{{- end -}}
{{- end -}}
{{- if ne (int $stores) 1 -}}
{{- $errors = append $errors (printf "store: %d of store.existingSecret, store.url and valkey.enabled are set; exactly one must be" (int $stores)) -}}
{{- end -}}

{{- $object := $v.objectStore -}}
{{- if ne (empty $object.accessKeyId) (empty $object.secretAccessKey) -}}
{{- $errors = append $errors "objectStore: accessKeyId and secretAccessKey go together" -}}
{{- end -}}
{{- if and $object.existingSecret $object.accessKeyId -}}
{{- $errors = append $errors "objectStore: give existingSecret or accessKeyId, not both" -}}
{{- end -}}
{{- if and (hasPrefix "http://" $object.endpoint) (not $object.allowHttp) -}}
{{- $errors = append $errors (printf "objectStore.endpoint is '%s': an endpoint without TLS needs objectStore.allowHttp" $object.endpoint) -}}
{{- end -}}

{{- if $v.networkPolicy.enabled -}}
{{- if and (eq $source "s3") $object.endpoint -}}
{{- $usual := ternary "80" "443" (hasPrefix "http://" $object.endpoint) -}}
{{- $port := regexFind ":[0-9]+(/|$)" $object.endpoint | trimAll ":/" | default $usual -}}
{{- if not (has $port (toStrings $v.networkPolicy.objectStore.ports)) -}}
{{- $errors = append $errors (printf "networkPolicy.objectStore.ports lacks %s, the port of objectStore.endpoint: the policy would block it" $port) -}}
{{- end -}}
{{- end -}}
{{- if $v.store.url -}}
{{- $port := regexFind ":[0-9]+(/|$)" $v.store.url | trimAll ":/" | default "6379" -}}
{{- if not (has $port (toStrings $v.networkPolicy.store.ports)) -}}
{{- $errors = append $errors (printf "networkPolicy.store.ports lacks %s, the port of store.url: the policy would block it" $port) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- $scaling := $v.autoscaling -}}
{{- if and (ne $scaling.kind "none") (gt (int $scaling.minReplicas) (int $scaling.maxReplicas)) -}}
{{- $errors = append $errors (printf "autoscaling: minReplicas %v is above maxReplicas %v" $scaling.minReplicas $scaling.maxReplicas) -}}
{{- end -}}
{{- if and (eq $scaling.kind "keda") (ne $scaling.metric "cpu") (not $scaling.keda.prometheusAddress) -}}
{{- $errors = append $errors "autoscaling.keda.prometheusAddress is empty: KEDA asks Prometheus for this metric" -}}
{{- end -}}
{{- if and (eq $scaling.kind "hpa") (ne $scaling.metric "cpu") (not $v.monitoring.rules) -}}
{{- $errors = append $errors (printf "autoscaling.metric %s of an HPA is a recorded series: set monitoring.rules, or choose the metric cpu" $scaling.metric) -}}
{{- end -}}
{{- if and (eq $scaling.kind "keda") (gt (int $scaling.keda.fallbackReplicas) (int $scaling.maxReplicas)) -}}
{{- $errors = append $errors (printf "autoscaling.keda.fallbackReplicas %v is above maxReplicas %v" $scaling.keda.fallbackReplicas $scaling.maxReplicas) -}}
{{- end -}}
{{- if and (eq $scaling.kind "keda") (ne $scaling.metric "concurrency") $scaling.keda.fallbackReplicas -}}
{{- $errors = append $errors (printf "autoscaling.keda.fallbackReplicas: KEDA has no fallback for the metric %s; set it to 0, and the number of pods stays as it is" $scaling.metric) -}}
{{- end -}}
{{- with $v.gateway.autoscaling -}}
{{- if and .enabled (gt (int .minReplicas) (int .maxReplicas)) -}}
{{- $errors = append $errors (printf "gateway.autoscaling: minReplicas %v is above maxReplicas %v" .minReplicas .maxReplicas) -}}
{{- end -}}
{{- end -}}

{{- if and (eq $v.triton.podDisruptionBudget.mode "always") (lt (int (include "saker.triton.fewest" .)) 2) -}}
{{- $errors = append $errors "triton.podDisruptionBudget.mode is always: with one replica it blocks every drain" -}}
{{- end -}}
{{- if and (eq $v.gateway.podDisruptionBudget.mode "always") (lt (int (include "saker.gateway.fewest" .)) 2) -}}
{{- $errors = append $errors "gateway.podDisruptionBudget.mode is always: with one replica it blocks every drain" -}}
{{- end -}}

{{- if and $v.gateway.apiKeys.existingSecret $v.gateway.apiKeys.lines -}}
{{- $errors = append $errors "gateway.apiKeys: give existingSecret or lines, not both" -}}
{{- end -}}
{{- if and $v.gateway.httpRoute.enabled (not $v.gateway.httpRoute.parentRefs) -}}
{{- $errors = append $errors "gateway.httpRoute.parentRefs is empty: a route needs a Gateway" -}}
{{- end -}}
{{- if and $v.gateway.ingress.enabled (not $v.gateway.ingress.hosts) -}}
{{- $errors = append $errors "gateway.ingress.hosts is empty: an Ingress needs a host" -}}
{{- end -}}

{{- if $v.gateway.hosts -}}
{{- $routed := concat (ternary $v.gateway.httpRoute.hostnames list $v.gateway.httpRoute.enabled) (ternary $v.gateway.ingress.hosts list $v.gateway.ingress.enabled) -}}
{{- range $routed | uniq -}}
{{- if and (not (hasPrefix "*" .)) (not (has . $v.gateway.hosts)) -}}
{{- $errors = append $errors (printf "gateway.hosts lacks '%s', which a route or an Ingress sends: the gateway would refuse every request with 421" .) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- if $v.training.enabled -}}
{{- if not (or $v.training.full.enabled $v.training.daily.enabled) -}}
{{- $errors = append $errors "training.enabled: neither training.full nor training.daily is enabled" -}}
{{- end -}}
{{- if and $v.training.pipeline.text $v.training.pipeline.existingConfigMap -}}
{{- $errors = append $errors "training.pipeline: give text or existingConfigMap, not both" -}}
{{- end -}}
{{- end -}}

{{- if $errors -}}
{{- fail (printf "\n\nvalues of the chart saker contradict each other:\n- %s\n" (join "\n- " $errors)) -}}
{{- end -}}
{{- end -}}
