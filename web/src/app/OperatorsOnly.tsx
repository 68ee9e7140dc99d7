// In place of an operators' view, for everybody else: why it is not there, and who can change that.

export function OperatorsOnly({ what }: { what: "nodes" | "logs" }) {
  return (
    <div className="operators-only" role="status">
      <h2>For operators only</h2>
      <p>
        {what === "logs"
          ? "Containers and logs show what others’ software writes"
          : "The list of nodes can close other people’s connections"}
        : it takes the role <span className="mono">operator</span>, which your session does not have.
      </p>
      <p>
        You run this server? On your own machine <span className="mono">make run</span> prints a link that
        signs in as operator; with containers,{" "}
        <span className="mono">docker compose run --rm setup operator</span> makes one. Elsewhere the role
        comes from your identity provider.
      </p>
      <a className="button" href="#todos">
        To the todos
      </a>
    </div>
  );
}
