#!/usr/bin/env bash
# The runs of `avb reproduce` as a Slurm array, one run a task. Once:
#   avb reproduce --tables I II III IV V --data_dir /data/A-VB --output_dir paper --print_commands > commands.txt
#   sbatch --array=1-$(wc -l < commands.txt)%8 slurm_array.sh commands.txt
# and, when all have ended, for the tables:
#   avb reproduce --tables I II III IV V --data_dir /data/A-VB --output_dir paper --collect
# Printed again, the commands are those of the runs that are still missing, and of those still going on: of these a second
# command is refused, since another process is at the run, and fails. Print them once more when all have ended.
#SBATCH --job-name=avb
#SBATCH --gres=gpu:1
#SBATCH --cpus-per-task=4
#SBATCH --mem=32G
#SBATCH --time=24:00:00
#SBATCH --signal=USR1@180
#SBATCH --requeue
#SBATCH --output=avb-%A-%a.log
set -uo pipefail

command=$(sed -n "${SLURM_ARRAY_TASK_ID}p" "$1")
if [[ -z "$command" ]]; then
  echo "$1 has no line $SLURM_ARRAY_TASK_ID" >&2
  exit 2
fi
echo "$command"
# srun does not take --cpus-per-task over from the job.
export SRUN_CPUS_PER_TASK="${SLURM_CPUS_PER_TASK:-1}"
srun bash -c "exec $command"
code=$?
# Three minutes before its time is over the run is sent SIGUSR1: it saves, and exits with 128 + 10.
if ((code == 138)); then
  scontrol requeue "${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}"
fi
exit "$code"
