{{/* Names. 36 characters leave room for the longest suffix, -training-daily, in a CronJob's 52. */}}
{{- define "saker.name" -}}
{{- .Values.nameOverride | default .Chart.Name -}}
{{- end -}}

{{- define "saker.fullname" -}}
{{- $own := ternary .Release.Name (printf "%s-%s" .Release.Name (include "saker.name" .)) (contains (include "saker.name" .) .Release.Name) -}}
{{- $name := .Values.fullnameOverride | default $own | replace "." "-" -}}
{{- if gt (len $name) 36 -}}
{{- printf "%s-%s" ($name | trunc 27 | trimSuffix "-") ($name | sha256sum | trunc 8) -}}
{{- else -}}
{{- $name -}}
{{- end -}}
{{- end -}}

{{/* Labels of an object: list ROOT COMPONENT. */}}
{{- define "saker.labels" -}}
{{- $root := index . 0 -}}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name ($root.Chart.Version | replace "+" "_") }}
{{ include "saker.selector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
app.kubernetes.io/part-of: saker
{{- with $root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "saker.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ include "saker.name" $root }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{/* Metadata of an object: list ROOT COMPONENT SUFFIX. */}}
{{- define "saker.metadata" -}}
{{- $root := index . 0 -}}
name: {{ include "saker.fullname" $root }}-{{ index . 2 }}
namespace: {{ $root.Release.Namespace }}
labels:
  {{- include "saker.labels" (list $root (index . 1)) | nindent 2 }}
{{- end -}}

{{/* The minor version of Kubernetes 1, as a number. */}}
{{- define "saker.minor" -}}
{{- $version := .Values.kubeVersion | default .Capabilities.KubeVersion.Version | trimPrefix "v" -}}
{{- index (splitList "." $version) 1 | regexFind "^[0-9]+" -}}
{{- end -}}

{{/* An image: list ROOT IMAGE. */}}
{{- define "saker.image" -}}
{{- $root := index . 0 -}}
{{- with index . 1 -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ .tag | default $root.Chart.AppVersion }}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The name of a component's service account: list ROOT ACCOUNT. */}}
{{- define "saker.account" -}}
{{- $root := index . 0 -}}
{{- $account := index $root.Values.serviceAccounts (index . 1) -}}
{{- $account.name | default (printf "%s-%s" (include "saker.fullname" $root) (index . 1)) -}}
{{- end -}}

{{- define "saker.control.secret" -}}
{{- .Values.control.existingSecret | default (printf "%s-control" (include "saker.fullname" .)) -}}
{{- end -}}

{{- define "saker.store.secret" -}}
{{- if .Values.valkey.enabled -}}
{{ include "saker.fullname" . }}-valkey
{{- else -}}
{{- .Values.store.existingSecret | default (printf "%s-store" (include "saker.fullname" .)) -}}
{{- end -}}
{{- end -}}

{{- define "saker.objectStore.secret" -}}
{{- if .Values.objectStore.existingSecret -}}
{{ .Values.objectStore.existingSecret }}
{{- else if .Values.objectStore.accessKeyId -}}
{{ include "saker.fullname" . }}-object-store
{{- end -}}
{{- end -}}

{{- define "saker.keys.secret" -}}
{{- if .Values.gateway.apiKeys.existingSecret -}}
{{ .Values.gateway.apiKeys.existingSecret }}
{{- else if .Values.gateway.apiKeys.lines -}}
{{ include "saker.fullname" . }}-api-keys
{{- end -}}
{{- end -}}

{{- define "saker.releases.url" -}}
{{- if eq .Values.releases.source "s3" -}}
{{ .Values.releases.url }}
{{- else -}}
file:///releases
{{- end -}}
{{- end -}}

{{- define "saker.releases.claim" -}}
{{- .Values.releases.claim.existing | default (printf "%s-releases" (include "saker.fullname" .)) -}}
{{- end -}}

{{- define "saker.state.claim" -}}
{{- .Values.training.state.existingClaim | default (printf "%s-state" (include "saker.fullname" .)) -}}
{{- end -}}

{{/* Environment of every program of ours. */}}
{{/* Where traces go. */}}
{{- define "saker.env.tracing" -}}
{{- with .Values.tracing.endpoint }}
- name: SAKER_TRACE
  value: {{ . | quote }}
- name: SAKER_TRACE_RATE
  value: {{ $.Values.tracing.rate | quote }}
{{- end }}
{{- end -}}

{{- define "saker.env" -}}
- name: RUST_LOG
  value: {{ .Values.logLevel | quote }}
- name: SAKER_RELEASES
  value: {{ include "saker.releases.url" . | quote }}
{{ include "saker.env.store" . }}
{{- with .Values.objectStore.region }}
- name: AWS_REGION
  value: {{ . | quote }}
{{- end }}
{{- with .Values.objectStore.endpoint }}
- name: AWS_ENDPOINT_URL
  value: {{ . | quote }}
{{- end }}
{{- if .Values.objectStore.allowHttp }}
- name: AWS_ALLOW_HTTP
  value: "true"
{{- end }}
{{- with include "saker.objectStore.secret" . }}
- name: AWS_ACCESS_KEY_ID
  valueFrom:
    secretKeyRef:
      name: {{ . }}
      key: {{ $.Values.objectStore.accessKeyIdKey }}
- name: AWS_SECRET_ACCESS_KEY
  valueFrom:
    secretKeyRef:
      name: {{ . }}
      key: {{ $.Values.objectStore.secretAccessKeyKey }}
{{- end }}
{{- end -}}

{{/* The address of Valkey or Redis, with its password. */}}
{{- define "saker.env.store" -}}
- name: SAKER_REDIS_URL
  valueFrom:
    secretKeyRef:
      name: {{ include "saker.store.secret" . }}
      key: {{ ternary .Values.store.urlKey "url" (not (empty .Values.store.existingSecret)) }}
{{- end -}}

{{- define "saker.env.control" -}}
- name: SAKER_CONTROL_KEY
  valueFrom:
    secretKeyRef:
      name: {{ include "saker.control.secret" . }}
      key: {{ ternary .Values.control.key "key" (not (empty .Values.control.existingSecret)) }}
{{- end -}}

{{- define "saker.env.pod" -}}
- name: POD_NAME
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
{{- end -}}

{{/* Environment that the values add to a main container. */}}
{{- define "saker.env.extra" -}}
{{- range .env }}
- name: {{ .name }}
  value: {{ .value | quote }}
{{- end }}
{{- range .secretEnv }}
- name: {{ .name }}
  valueFrom:
    secretKeyRef:
      name: {{ .secret }}
      key: {{ .key }}
{{- end }}
{{- end -}}

{{/* The folder of releases, where they are not in a bucket. */}}
{{- define "saker.releases.volume" -}}
{{- if eq .Values.releases.source "claim" -}}
- name: releases
  persistentVolumeClaim:
    claimName: {{ include "saker.releases.claim" . }}
{{- else if eq .Values.releases.source "image" -}}
- name: releases
  image:
    reference: {{ .Values.releases.image.reference | quote }}
    pullPolicy: {{ .Values.releases.image.pullPolicy }}
{{- end -}}
{{- end -}}

{{- define "saker.releases.mount" -}}
{{- if ne .Values.releases.source "s3" -}}
- name: releases
  mountPath: /releases
  {{- if eq .Values.releases.source "image" }}
  readOnly: true
  {{- end }}
{{- end -}}
{{- end -}}

{{/* A writable /tmp beside the read-only root. */}}
{{- define "saker.tmp.volume" -}}
- name: tmp
  emptyDir:
    sizeLimit: 256Mi
{{- end -}}

{{- define "saker.tmp.mount" -}}
- name: tmp
  mountPath: /tmp
{{- end -}}

{{- define "saker.security.container" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
{{- end -}}

{{/* Resources: dict cpu, memoryMi, gpu. */}}
{{- define "saker.resources" -}}
resources:
  requests:
    cpu: {{ .cpu | quote }}
    memory: {{ .memoryMi }}Mi
  limits:
    memory: {{ .memoryMi }}Mi
    {{- if .gpu }}
    nvidia.com/gpu: {{ .gpu }}
    {{- end }}
{{- end -}}

{{/* What is the same in every pod: list ROOT COMPONENT ACCOUNT POD, where POD is the values' `pod`; gpu and spread are true or false. */}}
{{- define "saker.pod" -}}
{{- $root := .root -}}
{{- if .account }}
serviceAccountName: {{ include "saker.account" (list $root .account) }}
{{- end }}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  {{- range $key := list "runAsUser" "runAsGroup" "fsGroup" }}
  {{- $id := index $root.Values.podSecurity $key }}
  {{- if not (kindIs "invalid" $id) }}
  {{ $key }}: {{ $id }}
  {{- end }}
  {{- end }}
  {{- if not (kindIs "invalid" $root.Values.podSecurity.fsGroup) }}
  fsGroupChangePolicy: OnRootMismatch
  {{- end }}
  seccompProfile:
    type: RuntimeDefault
{{- with $root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- with .pod.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .pod.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .pod.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- $gpu := ternary (list (dict "key" "nvidia.com/gpu" "operator" "Exists" "effect" "NoSchedule")) list (gt (int .gpu) 0) }}
{{- with concat $gpu (.pod.tolerations | default list) }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- if .spread }}
{{- $component := .component }}
{{- $spread := $root.Values.topologySpread }}
{{- if or (ne $spread.zone "none") (ne $spread.host "none") }}
topologySpreadConstraints:
  {{- range list (list "topology.kubernetes.io/zone" $spread.zone) (list "kubernetes.io/hostname" $spread.host) }}
  {{- if ne (index . 1) "none" }}
  - maxSkew: 1
    topologyKey: {{ index . 0 }}
    whenUnsatisfiable: {{ index . 1 }}
    labelSelector:
      matchLabels:
        {{- include "saker.selector" (list $root $component) | nindent 8 }}
    matchLabelKeys: [pod-template-hash]
  {{- end }}
  {{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Labels and annotations of pods: dict root, component, pod, annotations. */}}
{{- define "saker.pod.metadata" -}}
labels:
  {{- include "saker.labels" (list .root .component) | nindent 2 }}
  {{- with .pod.labels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with merge (dict) (.pod.annotations | default dict) (.annotations | default dict) }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* A PodDisruptionBudget: dict root, component, values, replicas (the fewest that run). */}}
{{- define "saker.disruption" -}}
{{- if and (ne .values.mode "never") (gt (int .replicas) 1) }}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  {{- include "saker.metadata" (list .root .component .component) | nindent 2 }}
spec:
  maxUnavailable: {{ .values.maxUnavailable }}
  # A pod that does not get ready must not block a drain.
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels:
      {{- include "saker.selector" (list .root .component) | nindent 6 }}
{{- end }}
{{- end -}}

{{/* The metric's target: 0.7 × instances requests, 5 ms, 70 %. */}}
{{- define "saker.target" -}}
{{- with .Values.autoscaling -}}
{{- if gt (float64 .target) 0.0 -}}
{{ .target }}
{{- else if eq .metric "concurrency" -}}
{{ mulf 0.7 .instances | printf "%.4g" }}
{{- else if eq .metric "queue" -}}
5
{{- else -}}
70
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Fewest pods of Triton and of the gateway. */}}
{{- define "saker.triton.fewest" -}}
{{- ternary .Values.triton.replicas .Values.autoscaling.minReplicas (eq .Values.autoscaling.kind "none") -}}
{{- end -}}

{{- define "saker.gateway.fewest" -}}
{{- ternary .Values.gateway.autoscaling.minReplicas .Values.gateway.replicas .Values.gateway.autoscaling.enabled -}}
{{- end -}}
