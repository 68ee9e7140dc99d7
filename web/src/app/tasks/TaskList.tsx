import { useState } from "react";
import { asProblem } from "../session";
import { Icon } from "../ui/Icon";
import { useToast } from "../ui/toast";
import { describeTask, isFinal, type Task } from "./model";
import type { Tasks } from "./useTasks";

/** Running and lately finished tasks, between the field and the list. */
export function TaskList({ tasks }: { tasks: Tasks }) {
  if (tasks.tasks.length === 0) return null;
  return (
    <ul className="tasks" aria-label="Background tasks">
      {tasks.tasks.map((task) => (
        <TaskCard key={task.id} task={task} tasks={tasks} />
      ))}
    </ul>
  );
}

function TaskCard({ task, tasks }: { task: Task; tasks: Tasks }) {
  const toast = useToast();
  const [busy, setBusy] = useState(false);
  const [rows, setRows] = useState<Task["errors"] | null>(null);
  const attempt = async (what: string, run: () => Promise<void>) => {
    setBusy(true);
    try {
      await run();
    } catch (error) {
      toast({ text: `${what} ${asProblem(error).message}`, tone: "danger" });
    } finally {
      setBusy(false);
    }
  };
  const save = () =>
    attempt("Not downloaded.", async () => {
      location.assign(await tasks.download(task.id));
    });
  const final = isFinal(task);
  return (
    <li className="task" data-testid="task" data-state={task.state} data-kind={task.kind}>
      <div className="task-line">
        <Icon name={task.kind === "import" ? "upload" : "download"} size={18} />
        <p className="tabular" role="status">
          {describeTask(task)}
        </p>
        {task.state === "completed" && task.kind === "export" && (
          <button type="button" className="button small primary" disabled={busy} onClick={() => void save()}>
            Download
          </button>
        )}
        {task.skipped > 0 && rows === null && (
          <button
            type="button"
            className="button small"
            disabled={busy}
            onClick={() =>
              void attempt("Not read.", async () => setRows(task.errors ?? (await tasks.problems(task.id))))
            }
          >
            Which?
          </button>
        )}
        {final ? (
          <button
            type="button"
            className="icon-button small"
            aria-label={`Dismiss: ${describeTask(task)}`}
            onClick={() => tasks.dismiss(task.id)}
          >
            <Icon name="close" size={16} />
          </button>
        ) : (
          <button
            type="button"
            className="button small quiet"
            disabled={busy}
            onClick={() => void attempt("Not cancelled.", () => tasks.cancel(task.id))}
          >
            Cancel
          </button>
        )}
      </div>
      {!final && (
        <progress
          aria-label={task.kind === "import" ? "Import" : "Export"}
          {...(task.total > 0 ? { value: task.done, max: task.total } : {})}
        />
      )}
      {rows && rows.length > 0 && (
        <ol className="task-rows">
          {rows.map(({ row, line, problem }) => (
            <li key={row}>
              Line {line}: {problem}
            </li>
          ))}
          {task.skipped > rows.length && <li>and {task.skipped - rows.length} more</li>}
        </ol>
      )}
    </li>
  );
}
